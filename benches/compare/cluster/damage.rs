//! Another page here and there in a restored directory: what a delta restore finds after a while.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use fastrand::Rng;

const PAGE_BYTES: u64 = 8192;

/// One in a hundred pages of the databases' files, chosen by chance but the same in every run; how
/// many.
pub fn change_a_hundredth(pgdata: &Path) -> u64 {
    let mut random = Rng::with_seed(100);
    let mut changed = 0;
    let mut folders = vec![pgdata.join("base")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).expect("read a directory").flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else {
                changed += change(&path, &mut random);
            }
        }
    }
    changed
}

fn change(path: &Path, random: &mut Rng) -> u64 {
    let pages = fs::metadata(path).expect("look at a file").len() / PAGE_BYTES;
    let chosen: Vec<u64> = (0..pages).filter(|_| random.u32(..100) == 0).collect();
    if chosen.is_empty() {
        return 0;
    }
    let file = OpenOptions::new().write(true).open(path).expect("open a file");
    for page in &chosen {
        let mut content = [0_u8; 512];
        random.fill(&mut content);
        file.write_all_at(&content, page * PAGE_BYTES + 4096).expect("change a page");
    }
    chosen.len() as u64
}
