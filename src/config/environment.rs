//! The environment: our variables by name, unknown ones refused.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::keys::{CONFIG_VARIABLE, KEYS, Key, PREFIX, TEST_PREFIX};
use crate::config::precedence::{Origin, Written};
use crate::config::suggest;
use crate::error::{Error, ErrorKind, Result};

/// What the environment says.
#[derive(Default)]
pub struct Environment {
    /// The configuration file it names.
    pub config: Option<PathBuf>,
    /// The position in `KEYS` and the value.
    pub written: Vec<(usize, Written)>,
}

/// Sorts out our variables. An empty one counts as not set, as service managers and containers like
/// to pass them.
pub fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Environment> {
    let mut environment = Environment::default();
    for (name, value) in variables {
        // A name that is not UTF-8 but begins like ours is as unknown as any other.
        let name = name.to_string_lossy();
        if !name.starts_with(PREFIX) || name.starts_with(TEST_PREFIX) {
            continue;
        }
        let key = KEYS.iter().position(|key| key.is_variable(&name));
        match key {
            _ if name == CONFIG_VARIABLE && value.is_empty() => {}
            _ if name == CONFIG_VARIABLE => environment.config = Some(PathBuf::from(value)),
            None => return Err(unknown(&name)),
            Some(_) if value.is_empty() => {}
            Some(key) => {
                let origin = Origin::Variable(name.into_owned());
                environment.written.push((key, Written { value, origin }));
            }
        }
    }
    Ok(environment)
}

fn unknown(name: &str) -> Error {
    let names: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).chain([CONFIG_VARIABLE]).collect();
    let hint = match suggest::nearest(name, &known) {
        Some(known) => format!("Did you mean {known}?"),
        None => "docs/configuration.md lists every variable; unset this one.".to_owned(),
    };
    Error::new(ErrorKind::Usage, format!("unknown environment variable {name}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::config::environment::{Environment, read};
    use crate::config::keys::KEYS;
    use crate::error::Result;

    fn read_all(variables: &[(&str, &str)]) -> Result<Environment> {
        read(variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
    }

    #[test]
    fn every_key_has_its_variable() {
        for (index, key) in KEYS.iter().enumerate() {
            let environment = read_all(&[(&key.variable(), key.example)]).unwrap();
            assert_eq!(environment.written.len(), 1);
            assert_eq!(environment.written[0].0, index);
        }
    }

    #[test]
    fn others_variables_empty_ones_and_those_of_the_tests_are_passed_over() {
        let variables = [
            ("PATH", "/bin"),
            ("WALDENSTEIN", "x"),
            ("WALDEN_CLUSTER", ""),
            ("WALDEN_CONFIG", ""),
            ("WALDEN_TEST_PG", "17"),
        ];
        let environment = read_all(&variables).unwrap();
        assert!(environment.written.is_empty() && environment.config.is_none());
    }

    #[test]
    fn an_unknown_variable_is_named_and_its_value_is_not() {
        let error = |name| read_all(&[(name, "hunter2")]).map(|_| ()).unwrap_err().one_line();
        let message = error("WALDEN_REPOSITRY_URL");
        assert!(message.contains("WALDEN_REPOSITRY_URL"), "{message}");
        assert!(message.contains("Did you mean WALDEN_REPOSITORY_URL?"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
        assert!(error("WALDEN_BANANAS").contains("unset this one"));
    }
}
