//! `tablespace_map`: where PostgreSQL links each tablespace when it starts from a backup.

/// One line for each tablespace: oid, a space, the path, with a backslash before newlines, carriage
/// returns and backslashes (`do_pg_backup_start` writes it so, `read_tablespace_map` reads it so,
/// xlog.c and xlogrecovery.c).
pub fn render<'a>(links: impl IntoIterator<Item = (u32, &'a str)>) -> String {
    let mut map = String::new();
    for (oid, path) in links {
        map.push_str(&format!("{oid} "));
        for character in path.chars() {
            if matches!(character, '\n' | '\r' | '\\') {
                map.push('\\');
            }
            map.push(character);
        }
        map.push('\n');
    }
    map
}

/// Reads such a map; `None` where it is none.
pub fn parse(map: &str) -> Option<Vec<(u32, String)>> {
    let mut links = Vec::new();
    let mut line = String::new();
    let mut characters = map.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => line.push(characters.next()?),
            '\n' => links.push(link(&std::mem::take(&mut line))?),
            _ => line.push(character),
        }
    }
    line.is_empty().then_some(links)
}

fn link(line: &str) -> Option<(u32, String)> {
    let (oid, path) = line.split_once(' ')?;
    Some((oid.parse().ok()?, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{parse, render};

    #[test]
    fn paths_are_escaped_as_postgresql_reads_them() {
        let links = [(16_384, "/mnt/fast"), (16_385, "/mnt/odd\\name\nwith line")];
        assert_eq!(render(links), "16384 /mnt/fast\n16385 /mnt/odd\\\\name\\\nwith line\n");
        assert_eq!(render([]), "");
        let read = parse(&render(links)).unwrap();
        assert!(read.iter().map(|(oid, path)| (*oid, path.as_str())).eq(links));
        assert_eq!(parse(""), Some(Vec::new()));
        assert_eq!(parse("16384 /no/end"), None);
        assert_eq!(parse("no oid\n"), None);
    }
}
