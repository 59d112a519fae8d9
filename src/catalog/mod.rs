//! Pure decisions over what the repository holds: values in, plans and refusals out.

pub mod inventory;
pub mod moment;
pub mod target;
pub mod timeline_tree;
pub mod wal_run;
pub mod window;
pub mod loss;
pub mod chain;
pub mod recovery_plan;
pub mod events;

pub use chain::Chain;
pub use inventory::{Inventory, WalPart};
pub use recovery_plan::{BackupSummary, Decision, Wanted};
pub use target::{Target, TargetAction, TargetTimeline, Zones};
pub use timeline_tree::{TimelinePath, TimelineTree};
