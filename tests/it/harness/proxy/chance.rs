//! Faults that come by chance: a share of all requests, in an order that a seed repeats.

use std::collections::BTreeMap;

use super::Fault;

#[derive(Debug, Default)]
pub struct Chance {
    dice: Option<Dice>,
    given: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Dice {
    random: fastrand::Rng,
    share: f64,
    faults: Vec<Fault>,
}

impl Chance {
    pub fn set(&mut self, seed: u64, share: f64, faults: &[Fault]) {
        let random = fastrand::Rng::with_seed(seed);
        self.dice = Some(Dice { random, share, faults: faults.to_vec() });
    }

    /// What was given stays known.
    pub fn end(&mut self) {
        self.dice = None;
    }

    pub fn fault(&mut self, method: &str) -> Option<Fault> {
        let dice = self.dice.as_mut()?;
        if dice.random.f64() >= dice.share {
            return None;
        }
        let fitting = dice.faults.iter().filter(|fault| fault.can_happen_to(method));
        let fault = dice.random.choice(fitting.collect::<Vec<_>>())?.clone();
        *self.given.entry(fault.name()).or_default() += 1;
        Some(fault)
    }

    pub fn given(&self) -> BTreeMap<String, usize> {
        self.given.clone()
    }
}

impl Fault {
    /// A PUT is answered without a body, and nothing else is sent with one.
    fn can_happen_to(&self, method: &str) -> bool {
        match self {
            Fault::FlipSent | Fault::OtherChecksum | Fault::IgnoreCondition => method == "PUT",
            Fault::ErrorIn200 | Fault::ResetAfterHeaders | Fault::Truncate | Fault::FlipByte => {
                method == "GET"
            }
            _ => true,
        }
    }

    fn name(&self) -> String {
        match self {
            Fault::Answer { status, code, .. } => format!("{status} {code}").trim().to_owned(),
            other => format!("{other:?}"),
        }
    }
}
