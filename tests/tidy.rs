//! The house rules that no compiler knows: layers, purity, sizes, headers, words, and the map.
//!
//! It reads text, so macros and re-exports can hide a use from it. The rules and why we have them:
//! CONTRIBUTING.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Top to bottom: a module uses only modules of later lines, and never one on its own line.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["lib"],
    &["cli"],
    &["commands"],
    &["config"],
    &["repository"],
    &["storage", "codec", "catalog"],
    &["postgres", "notify"],
    &["host"],
    &["error"],
];

/// In the order the manual tells them: a command may use earlier lines, never its own or later
/// ones.
const COMMANDS: &[&[&str]] = &[
    &["progress"],
    &["audit"],
    &["archive"],
    &["survey"],
    &["backup"],
    &["window"],
    &["find"],
    &["list"],
    &["restore"],
    &["verify"],
    &["drill"],
    &["report"],
    &["demo"],
];

/// Bytes and values only: no files, no clock, no network, no async, outside their tests.
const PURE: &[&str] = &["src/catalog", "src/codec", "src/postgres/wal"];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "crate::host",
    "tokio",
    "rustix",
    "async fn",
];

/// Put together here, so that this file does not find itself.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("use super", "::*"), "name what is used"),
    (concat!("super::", "super::"), "say crate::…, so that the layers can be checked"),
    (concat!("#[", "path"), "a file lies where its module is"),
    (concat!("TO", "DO"), "do it, or open an issue"),
    (concat!("FIX", "ME"), "fix it, or open an issue"),
    (concat!("dbg", "!("), "take it out again"),
    (concat!("to", "do!("), "write it, or leave it out"),
    (concat!("unimpl", "emented!("), "write it, or leave it out"),
];

const FILE_LINES_MAX: usize = 500;
const COLUMNS_MAX: usize = 100;

#[test]
fn every_source_file_keeps_the_house_rules() {
    let mut faults = Vec::new();
    for path in sources() {
        let text = read(&path);
        faults.extend(faults_of(&path, &text).into_iter().map(|fault| format!("{path}: {fault}")));
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_file_under_src_is_a_module_of_its_parent() {
    for path in sources().iter().filter(|path| path.starts_with("src/")) {
        let Some((parents, name)) = parents_of(path) else { continue };
        let declared = |parent: &String| is_declared(&read(parent), &name);
        let known = parents.iter().filter(|parent| root().join(parent).exists());
        assert!(known.clone().any(declared), "{path}: nobody says `mod {name};`, it is dead");
    }
}

#[test]
fn architecture_names_every_folder_and_top_level_module() {
    let map = read("ARCHITECTURE.md");
    let missing: Vec<String> =
        places_to_name().into_iter().filter(|place| !is_named(&map, place)).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {}", missing.join(", "));
}

/// All faults of one file; a path decides which rules hold for it.
fn faults_of(path: &str, text: &str) -> Vec<String> {
    let code = without_comments_and_strings(text);
    let mut faults = Vec::new();
    faults.extend(faults_of_shape(text));
    faults.extend(faults_of_words(text, &code));
    if path.starts_with("src/") {
        faults.extend(faults_of_layers(path, &code));
    }
    if PURE.iter().any(|pure| path.starts_with(&format!("{pure}/"))) {
        let production = code.split("#[cfg(test)]").next().unwrap_or_default();
        let impure = IMPURE.iter().filter(|word| has_word(production, word));
        faults.extend(impure.map(|word| format!("pure, but says {word}")));
    }
    faults
}

fn faults_of_shape(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//! ") {
        faults.push("its first line is no `//!` that says its job".to_owned());
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        faults
            .push(format!("{lines} lines, at most {FILE_LINES_MAX}: there is a second idea in it"));
    }
    for (number, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        // An address cannot be broken.
        if columns > COLUMNS_MAX && !line.contains("://") {
            faults.push(format!("line {}: {columns} columns, at most {COLUMNS_MAX}", number + 1));
        }
    }
    faults
}

fn faults_of_words(text: &str, code: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let found = FORBIDDEN.iter().filter(|(word, _)| line.contains(word));
        faults.extend(found.map(|(word, why)| format!("line {}: {word}: {why}", number + 1)));
    }
    if has_word(code, "unsafe") {
        faults.push("says unsafe: use std, rustix or signal-hook".to_owned());
    }
    faults
}

fn faults_of_layers(path: &str, code: &str) -> BTreeSet<String> {
    let own = module_path(path);
    let Some(own_layer) = line_of(LAYERS, &own[0]) else {
        return [format!("its module {} stands in no layer of tests/tidy.rs", own[0])].into();
    };
    let mut faults = BTreeSet::new();
    for used in used_paths(code) {
        let Some(layer) = line_of(LAYERS, &used[0]) else { continue };
        if used[0] != own[0] && layer <= own_layer {
            faults.insert(format!("{} uses {}, which does not stand under it", own[0], used[0]));
        }
        if own[0] == "commands" && used[0] == "commands" && own.len() > 1 && used.len() > 1 {
            let (Some(own_line), Some(line)) =
                (line_of(COMMANDS, &own[1]), line_of(COMMANDS, &used[1]))
            else {
                continue;
            };
            if used[1] != own[1] && line >= own_line {
                faults
                    .insert(format!("command {} uses {}, which comes no earlier", own[1], used[1]));
            }
        }
    }
    faults
}

fn line_of(table: &[&[&str]], name: &str) -> Option<usize> {
    table.iter().position(|line| line.contains(&name))
}

/// `src/commands/backup/mod.rs` is `[commands, backup]`.
fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The first two parts of every path that begins with `crate::` or `walden::`, groups opened:
/// `use crate::{host, postgres::{lsn, wal}}` is host, postgres::lsn, postgres::wal.
fn used_paths(code: &str) -> BTreeSet<Vec<String>> {
    let mut paths = BTreeSet::new();
    for prefix in ["crate::", "walden::"] {
        for (start, _) in code.match_indices(prefix) {
            let before = code[..start].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                open_group(&code[start + prefix.len()..], &[], &mut paths);
            }
        }
    }
    paths
}

/// Reads one path or `{…}` group at the start of `code`, and returns what follows it.
fn open_group<'a>(code: &'a str, above: &[String], paths: &mut BTreeSet<Vec<String>>) -> &'a str {
    let mut rest = code.trim_start();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            let after = open_group(rest, above, paths);
            // A token that is no path: step over it, so that this ends.
            let step = rest.chars().next().map_or(0, char::len_utf8);
            rest = if after.len() == rest.len() { &rest[step..] } else { after };
            rest = rest.trim_start_matches([',', ' ', '\n', '\t']);
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (name, mut rest) = rest.split_at(length);
    if name.is_empty() {
        return rest;
    }
    let here: Vec<String> = above.iter().cloned().chain([name.to_owned()]).collect();
    match rest.strip_prefix("::") {
        Some(deeper) if here.len() < 2 => rest = open_group(deeper, &here, paths),
        Some(deeper) => rest = open_group(deeper, &here, &mut BTreeSet::new()),
        None => {}
    }
    paths.insert(here);
    rest
}

/// The code with every comment and string blanked; lines stay where they were.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = length_of_silence(rest);
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
            code.push(' ');
            rest = &rest[length..];
        }
    }
    code
}

/// How many bytes of `text` are a comment, a string or a character that begins right here.
fn length_of_silence(text: &str) -> usize {
    let until = |from: usize, end: &str| {
        text[from..].find(end).map_or(text.len(), |found| from + found + end.len())
    };
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until(2, "*/");
    }
    for hashes in ["###", "##", "#", ""] {
        if text.starts_with(&format!("r{hashes}\"")) {
            return until(hashes.len() + 2, &format!("\"{hashes}"));
        }
    }
    match text.as_bytes() {
        [b'"', ..] => length_of_quoted(text, b'"'),
        [b'\'', b'\\', ..] => length_of_quoted(text, b'\''),
        // 'x' is a character; 'x without a second quote is a lifetime.
        [b'\'', _, b'\'', ..] => 3,
        _ => 0,
    }
}

fn length_of_quoted(text: &str, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn has_word(code: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(start, _)| {
        let (before, after) = (&code[..start], &code[start + word.len()..]);
        !is_part(before.chars().next_back()) && !is_part(after.chars().next())
    })
}

/// Named between backticks or as the first word of a line, as in a map; with or without `src/`. A
/// folder may also stand by its last name on a line that names the folder it lies in.
fn is_named(map: &str, place: &str) -> bool {
    let names_in = |text: &str, place: &str| {
        let is_it = |word: &str| {
            let word = word.strip_prefix("src/").unwrap_or(word).trim_end_matches('/');
            word.trim_end_matches(".rs") == place
        };
        text.split('`').skip(1).step_by(2).any(is_it)
            || text.lines().filter_map(|line| line.split_whitespace().next()).any(is_it)
    };
    let beside_its_parent = |(parent, name): (&str, &str)| {
        map.lines().any(|line| names_in(line, parent) && names_in(line, name))
    };
    names_in(map, place) || place.rsplit_once('/').is_some_and(beside_its_parent)
}

fn is_declared(parent: &str, name: &str) -> bool {
    let declaration = format!("mod {name};");
    without_comments_and_strings(parent).lines().any(|line| {
        let line = line.trim();
        line == declaration
            || (line.starts_with("pub") && line.ends_with(&format!(" {declaration}")))
    })
}

/// The files that may declare the module in `path`, and its name; `None` for the roots.
fn parents_of(path: &str) -> Option<(Vec<String>, String)> {
    if ["src/lib.rs", "src/main.rs"].contains(&path) {
        return None;
    }
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let (folder, name) = module.rsplit_once('/')?;
    let parents = match folder {
        "src" => vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()],
        _ => vec![format!("{folder}/mod.rs"), format!("{folder}.rs")],
    };
    Some((parents, name.to_owned()))
}

/// `host`, `commands`, `commands/archive` …
fn places_to_name() -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    for path in sources() {
        let Some(module) = path.strip_prefix("src/") else { continue };
        let mut parts: Vec<&str> = module.split('/').collect();
        let file = parts.pop().unwrap_or_default();
        // A file may have its tests beside it; that makes no place of its own.
        if file == "tests.rs" {
            continue;
        }
        if parts.is_empty() && file != "lib.rs" {
            places.insert(file.trim_end_matches(".rs").to_owned());
        }
        for depth in 1..=parts.len() {
            places.insert(parts[..depth].join("/"));
        }
    }
    places
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Every Rust file of ours, relative to the root, sorted.
fn sources() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "benches"].iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(root()).expect("it is under the root");
                found.push(relative.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    assert!(
        found.len() > 10,
        "only {} source files found: looking in the wrong place",
        found.len()
    );
    found
}

/// Planted faults: a check that finds nothing must be known to find something.
mod planted {
    use super::{faults_of, is_declared, is_named, used_paths, without_comments_and_strings};

    #[track_caller]
    fn finds(path: &str, body: &str, fault: &str) {
        let faults = faults_of(path, &format!("//! Its job.\n{body}"));
        assert!(faults.len() == 1 && faults[0].contains(fault), "wanted {fault:?}: {faults:?}");
    }

    #[track_caller]
    fn passes(path: &str, body: &str) {
        let faults = faults_of(path, &format!("//! Its job.\n{body}"));
        assert!(faults.is_empty(), "{faults:?}");
    }

    #[test]
    fn an_upward_use() {
        finds("src/storage/mod.rs", "use crate::repository::Home;", "storage uses repository");
        finds("src/error.rs", "fn f() { crate::host::name(); }", "error uses host");
        finds("src/host/mod.rs", "use crate::{error::Error, cli};", "host uses cli");
        passes("src/repository/wal.rs", "use crate::storage::{Key, Storage};\nuse crate::error;");
    }

    #[test]
    fn a_sibling_use() {
        finds("src/codec/seal.rs", "use crate::storage::Body;", "codec uses storage");
        finds("src/notify/mod.rs", "use crate::postgres::Lsn;", "notify uses postgres");
        passes("src/codec/seal.rs", "use crate::codec::header::Header;");
    }

    #[test]
    fn a_module_that_has_no_layer() {
        finds("src/helpers.rs", "", "helpers stands in no layer");
    }

    #[test]
    fn a_command_that_uses_a_later_one() {
        let body = "use crate::commands::{App, restore::plan};";
        finds("src/commands/backup/mod.rs", body, "command backup uses restore");
        passes("src/commands/demo/mod.rs", body);
    }

    #[test]
    fn an_impure_core() {
        finds("src/postgres/wal/page.rs", "use std::fs::File;", "pure, but says std::fs");
        finds("src/catalog/mod.rs", "use std::time::SystemTime;", "pure, but says SystemTime");
        finds("src/codec/open.rs", "async fn open() {}", "pure, but says async fn");
        passes("src/codec/open.rs", "#[cfg(test)]\nmod tests { use std::fs; }");
        passes("src/postgres/server.rs", "use std::fs::File;");
    }

    #[test]
    fn a_shapeless_file() {
        let long = "\n".repeat(500);
        finds("src/host/mod.rs", &long, "501 lines");
        finds("tests/it/main.rs", &format!("// {}", "ä".repeat(98)), "101 columns");
        passes("tests/it/main.rs", &format!("// {}", "ä".repeat(97)));
        assert!(faults_of("src/error.rs", "use std::fmt;")[0].contains("first line"));
    }

    #[test]
    fn a_forbidden_word() {
        for (word, _) in super::FORBIDDEN {
            finds("tests/it/main.rs", word, word);
        }
        finds("src/host/mod.rs", concat!("fn f() { uns", "afe { g() } }"), "says unsafe");
        passes("src/host/mod.rs", "// Nothing unsafe here.\nlet unsafe_looking = \"unsafe\";");
    }

    #[test]
    fn a_use_hidden_in_groups() {
        let code = "use crate::{\n    host::{self, clock::{Deadline, now}},\n    postgres,\n};\n\
                    fn f() -> crate::error::Result<()> { my_crate::x(); }";
        let used: Vec<String> = used_paths(code).iter().map(|path| path.join("::")).collect();
        let wanted = ["error", "error::Result", "host", "host::clock", "host::self", "postgres"];
        assert_eq!(used, wanted);
    }

    #[test]
    fn words_in_comments_and_strings_do_not_count() {
        let text = "a /* b\nb */ \"c\\\"c\" r#\"d\"d\"# 'e' '\\'' &'f g // h";
        let code = without_comments_and_strings(text);
        assert_eq!(code.split_whitespace().collect::<Vec<_>>(), ["a", "&'f", "g"]);
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn a_place_the_map_does_not_name() {
        let map = "the host of all\n\n| `src/postgres/wal/` | pages |\n```\nmain.rs   runs\n```\n";
        assert!(is_named(map, "postgres/wal"));
        assert!(is_named(map, "main"));
        assert!(!is_named(map, "host"), "prose names nothing");
        assert!(!is_named(map, "postgres"));
        let row = "| `storage` | `directory`, `s3` |\n| `postgres` | `lsn` |\n";
        assert!(is_named(row, "storage/s3"));
        assert!(!is_named(row, "postgres/s3"), "another line names it");
    }

    #[test]
    fn a_dead_file() {
        let parent = "// mod dead;\npub mod alive;\npub(crate) mod inner;\nmod plain;\n";
        assert!(["alive", "inner", "plain"].iter().all(|name| is_declared(parent, name)));
        assert!(!is_declared(parent, "dead"));
    }
}
