//! One use case each, in the order the manual tells them.

pub mod archive;
pub mod backup;
pub mod restore;
pub mod demo;

use crate::config::Settings;

/// What every command works with.
#[derive(Debug)]
pub struct App {
    pub settings: Settings,
}

impl App {
    pub fn new(settings: Settings) -> Self {
        App { settings }
    }
}
