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

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn paths_are_escaped_as_postgresql_reads_them() {
        let links = [(16_384, "/mnt/fast"), (16_385, "/mnt/odd\\name\nwith line")];
        assert_eq!(render(links), "16384 /mnt/fast\n16385 /mnt/odd\\\\name\\\nwith line\n");
        assert_eq!(render([]), "");
    }
}
