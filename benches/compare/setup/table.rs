//! Markdown, as docs/performance.md has it.

use std::time::Duration;

pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        Table { head: head.iter().map(|&cell| cell.to_owned()).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn print(&self) {
        let line = |cells: &[String]| println!("| {} |", cells.join(" | "));
        line(&self.head);
        println!("|{}", "---|".repeat(self.head.len()));
        self.rows.iter().for_each(|row| line(row));
        println!();
    }
}

pub fn milliseconds(time: Duration) -> String {
    let time = time.as_secs_f64() * 1e3;
    if time < 100.0 { format!("{time:.1} ms") } else { format!("{time:.0} ms") }
}

pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

pub fn ratio(time: Duration, base: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() / base.as_secs_f64())
}

/// Bytes as mebibytes, or as kibibytes where that says more.
pub fn size(bytes: f64) -> String {
    let mebibytes = bytes / f64::from(1 << 20);
    if mebibytes < 0.1 && bytes > 0.0 {
        format!("{:.0} KiB", bytes / 1024.0)
    } else {
        format!("{mebibytes:.1} MiB")
    }
}
