//! Letting others go first.

/// Lowers the priority of this thread and of those it starts from here on. Never raises it: who was
/// started with less keeps that.
///
/// Linux takes the priority for the disk from this one as long as nobody set another
/// (ioprio_set(2)).
pub fn lower(nice: u8) {
    let wanted = i32::from(nice.min(19));
    let lowered = match rustix::process::getpriority_process(None) {
        Ok(now) if now >= wanted => Ok(()),
        Ok(_) => rustix::process::setpriority_process(None, wanted),
        Err(error) => Err(error),
    };
    if let Err(error) = lowered {
        tracing::warn!(%error, "cannot lower the priority");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::lower;

    #[test]
    fn it_goes_down_for_this_thread_and_its_children_and_never_up() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let own = nice();
        let [first, child, after] = thread::spawn(move || {
            lower(15);
            let first = nice();
            let child = thread::spawn(nice).join().unwrap();
            lower(3);
            [first, child, nice()]
        })
        .join()
        .unwrap();
        assert!(first >= 15);
        assert_eq!((child, after), (first, first));
        assert_eq!(nice(), own, "the tests beside this one");
    }
}
