//! What a finding must say, and that nothing else is called damaged.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use walden::postgres::{Lsn, SegmentName};

use super::landscape::{Backup, Landscape, object, start};

/// What `verify` must say of a repository that was damaged in one way.
#[derive(Debug, Default)]
pub struct Expected {
    wanted: Vec<Wanted>,
    /// What else may be called damaged: it is, by the same deed.
    also: Vec<String>,
}

/// A finding that names one of these objects, and says what it costs.
#[derive(Debug)]
struct Wanted {
    severity: &'static str,
    objects: Vec<String>,
    stretch: Option<Stretch>,
    /// No more and no fewer than these cannot be restored because of it.
    backups: Option<Vec<String>>,
    words: Vec<String>,
}

/// What cannot be recovered: all commits after one and before the next beginning.
#[derive(Debug)]
struct Stretch {
    /// `None`: there is no backup before it, so nothing was to be had there.
    last_kept: Option<Timestamp>,
    first_lost: Timestamp,
    last_lost: Timestamp,
    /// `None`: never again.
    again: Option<Timestamp>,
}

/// Any of them may be what the finding names.
pub fn damage(objects: &[&str]) -> Expected {
    Expected::of("damage", objects)
}

/// Worth saying, and no harm.
pub fn note(objects: &[&str]) -> Expected {
    Expected::of("note", objects)
}

/// Recovery stops where this segment begins, and whatever backup needs it is lost.
pub fn lost(landscape: &Landscape, segment: SegmentName) -> Expected {
    let name = segment.to_string();
    let backups = [&landscape.full, &landscape.incremental, &landscape.second];
    let needing = backups.into_iter().filter(|backup| {
        let needed = start(backup.first_wal)..=start(backup.last_wal);
        needed.contains(&start(segment)) && backup.first_wal.timeline == segment.timeline
    });
    let ids: Vec<&str> = needing.map(|backup| backup.id.as_str()).collect();
    damage(&[&name]).stretch(landscape, segment).backups(&ids)
}

impl Expected {
    fn of(severity: &'static str, objects: &[&str]) -> Expected {
        let objects = objects.iter().map(|object| (*object).to_owned()).collect();
        let (stretch, backups, words) = (None, None, Vec::new());
        let wanted = Wanted { severity, objects, stretch, backups, words };
        Expected { wanted: vec![wanted], also: Vec::new() }
    }

    /// The consequence is that what this segment and those after it hold cannot be recovered, until
    /// the next backup.
    pub fn stretch(self, landscape: &Landscape, segment: SegmentName) -> Expected {
        let before = landscape.last_commit_before(segment);
        let has_beginning = start(landscape.full.last_wal) < start(segment);
        let again = landscape.next_beginning(segment);
        self.loses(landscape, (has_beginning.then_some(before), start(segment)), again)
    }

    /// Nothing of what came after this backup and before the `next` can be recovered.
    pub fn until(self, landscape: &Landscape, backup: &Backup, next: &Backup) -> Expected {
        let from = (Some(backup.ended), start(backup.last_wal));
        self.loses(landscape, from, Some(next.ended))
    }

    fn loses(
        mut self,
        landscape: &Landscape,
        (last_kept, from): (Option<Timestamp>, Lsn),
        again: Option<Timestamp>,
    ) -> Expected {
        let is_lost = |time: &Timestamp| again.is_none_or(|again| *time < again);
        let after = landscape.steps.iter().filter(|step| start(step.segment) >= from);
        let lost: Vec<Timestamp> = after.map(|step| step.time).filter(is_lost).collect();
        let [first_lost, last_lost] = [lost.first(), lost.last()]
            .map(|time| time.copied().or(again).expect("something is lost"));
        let stretch = Stretch { last_kept, first_lost, last_lost, again };
        self.wanted.last_mut().unwrap().stretch = Some(stretch);
        self
    }

    /// These cannot be restored any more, and the consequence names them.
    pub fn backups(mut self, ids: &[&str]) -> Expected {
        let mut ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        ids.sort();
        let wanted = self.wanted.last_mut().unwrap();
        wanted.words.extend(ids.iter().cloned());
        wanted.backups = Some(ids);
        self
    }

    /// The consequence has these words in it.
    pub fn says(mut self, words: &[&str]) -> Expected {
        let words = words.iter().map(|word| (*word).to_owned());
        self.wanted.last_mut().unwrap().words.extend(words);
        self
    }

    pub fn and(mut self, other: Expected) -> Expected {
        self.wanted.extend(other.wanted);
        self.also.extend(other.also);
        self
    }

    /// What else may be called damaged.
    pub fn also(mut self, objects: &[&str]) -> Expected {
        self.also.extend(objects.iter().map(|object| (*object).to_owned()));
        self
    }

    pub fn is_damage(&self) -> bool {
        self.wanted.iter().any(|wanted| wanted.severity == "damage")
    }

    /// What is wrong with the answer, as lines; none where all is as it should be.
    pub fn compare(&self, report: &Value) -> Vec<String> {
        let findings = report["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut wrong: Vec<String> =
            self.wanted.iter().filter_map(|wanted| wanted.missed_in(findings)).collect();
        for finding in findings {
            for key in ["severity", "object", "what", "consequence", "advice"] {
                if finding[key].as_str().is_none_or(str::is_empty) {
                    wrong.push(format!("no {key} in {finding}"));
                }
            }
            let object = text(finding, "object");
            let wanted = self.wanted.iter().filter(|wanted| wanted.severity == "damage");
            let mut known = wanted.flat_map(|wanted| &wanted.objects).chain(&self.also);
            if text(finding, "severity") == "damage"
                && !known.any(|known| object.contains(known.as_str()))
            {
                wrong.push(format!("called damaged, and is not: {finding}"));
            }
        }
        wrong
    }
}

impl Wanted {
    fn missed_in(&self, findings: &[Value]) -> Option<String> {
        let names = |finding: &&Value| {
            let object = text(finding, "object");
            text(finding, "severity") == self.severity
                && self.objects.iter().any(|wanted| object.contains(wanted.as_str()))
        };
        let named: Vec<&Value> = findings.iter().filter(names).collect();
        if named.is_empty() {
            return Some(format!("no {} of any of {:?}", self.severity, self.objects));
        }
        let is_told = |finding: &&Value| {
            let consequence = text(finding, "consequence");
            let stretch = self.stretch.as_ref();
            let lost = finding["lost_backups"].as_array().into_iter().flatten();
            let mut lost: Vec<&str> = lost.filter_map(Value::as_str).collect();
            lost.sort_unstable();
            stretch.is_none_or(|stretch| stretch.is_in(consequence))
                && self.backups.as_ref().is_none_or(|ids| *ids == lost)
                && self.words.iter().all(|word| consequence.contains(word.as_str()))
        };
        let told: Vec<String> = named.iter().map(ToString::to_string).collect();
        let missed = || format!("{self:?}\nis not what these say: {}", told.join("\n"));
        (!named.iter().any(is_told)).then(missed)
    }
}

impl Stretch {
    /// Both ends, to the second.
    fn is_in(&self, consequence: &str) -> bool {
        let second = SignedDuration::from_secs(1);
        let times = times_in(consequence);
        let between = |from: Timestamp, to: Timestamp| {
            times.iter().any(|time| *time > from - second && *time < to + second)
        };
        self.last_kept.is_none_or(|last_kept| between(last_kept, self.first_lost))
            && self.again.is_none_or(|again| between(self.last_lost, again))
    }
}

/// Every time in a text that has a date, or the date of the one before it.
fn times_in(text: &str) -> Vec<Timestamp> {
    let mut date = None;
    let mut times = Vec::new();
    for word in text.split([' ', 'T', ',', ';', '(', ')']) {
        if let Ok(found) = word.parse::<jiff::civil::Date>() {
            date = Some(found);
        }
        let word = word.trim_end_matches(['.', 'Z']);
        let time = word.parse::<jiff::civil::Time>().ok().filter(|_| word.contains(':'));
        let zoned = date.zip(time).map(|(date, time)| date.to_datetime(time).in_tz("UTC").unwrap());
        times.extend(zoned.map(|zoned| zoned.timestamp()));
    }
    times
}

fn text<'a>(finding: &'a Value, key: &str) -> &'a str {
    finding[key].as_str().unwrap_or_default()
}

#[test]
fn a_stretch_is_read_out_of_words() {
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let stretch = Stretch {
        last_kept: Some(time("2026-11-22T10:02:00.5Z")),
        first_lost: time("2026-11-22T10:02:30Z"),
        last_lost: time("2026-11-22T10:05:00Z"),
        again: Some(time("2026-11-22T10:07:00Z")),
    };
    assert!(stretch.is_in("from 2026-11-22 10:02:00 UTC to 2026-11-22T10:06:59.5Z."));
    assert!(stretch.is_in("into 2026-11-22 10:02:00 to 10:07:00 UTC (timeline 1) and"));
    assert!(!stretch.is_in("from 2026-11-22 10:02:00 UTC to 2026-11-22 10:04:00 UTC"));
    assert!(!stretch.is_in("something is lost"));
    assert!(object(SegmentName::parse("000000010000000000000003").unwrap()).ends_with("3.zst"));
}
