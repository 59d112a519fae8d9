//! How much there is: WAL and backups by day, storage as it grew.

use maud::Markup;
use plotters::prelude::*;

use crate::cli::report::chart::{
    BLUE, FAINT, ORANGE, PURPLE, Plane, SKY, Size, at_day, day_axis, draw, picture, size_axis,
};
use crate::cli::report::figures::size as in_words;
use crate::cli::report::pictures::buckets;
use crate::commands::list::Type;
use crate::commands::report::Report;
use crate::commands::report::days::date;
use crate::commands::report::usage::StorageDay;
use crate::error::Result;

pub fn wal(report: &Report) -> Result<Option<Markup>> {
    let days = &report.wal.days;
    let Some(max) = days.iter().map(|day| day.raw_bytes).max().filter(|max| *max > 0) else {
        return Ok(None);
    };
    let title = "WAL archived day by day: as PostgreSQL wrote it, and as it is stored";
    let text = format!("At most {} on a day.", in_words(max));
    let sizes = (Size::wide(220), Size::narrow(220));
    let drawn = picture("wal-days", (title, &text), sizes, |size| {
        let buckets = buckets(days, size.marks_max(), |day| day.day);
        let sums: Vec<(u64, u64)> = buckets
            .iter()
            .map(|bucket| {
                let raw: u64 = bucket.days.iter().map(|day| day.raw_bytes).sum();
                (raw, bucket.days.iter().map(|day| day.stored_bytes).sum())
            })
            .collect();
        let y = size_axis(sums.iter().map(|(raw, _)| *raw).max().unwrap_or(0));
        let x = day_axis(days[0].day, days[days.len() - 1].day, size);
        draw(size, (&x, &y), |plane| {
            for (bucket, (raw, stored)) in buckets.iter().zip(&sums) {
                let (from, to) = (at_day(bucket.from), at_day(bucket.to));
                bar(plane, (from, to), (0.0, *raw as f64), FAINT)?;
                bar(plane, (from, to), (0.0, *stored as f64), BLUE)?;
            }
            Ok(())
        })
    });
    drawn.map(Some)
}

/// Bytes stored, by the day a backup ended.
pub fn backups(report: &Report) -> Result<Option<Markup>> {
    let days = &report.wal.days;
    let (Some(first), Some(last)) = (days.first(), days.last()) else { return Ok(None) };
    let (first, last) = (first.day, last.day);
    let of_day = |day, kind| -> u64 {
        let backups = report.backups.list.iter();
        let on = backups.filter(|it| it.kind == Some(kind) && it.ended.map(date) == Some(day));
        on.filter_map(|backup| backup.stored).sum()
    };
    let sums: Vec<_> = days
        .iter()
        .map(|day| (day.day, of_day(day.day, Type::Full), of_day(day.day, Type::Incremental)))
        .collect();
    if sums.iter().all(|(_, full, incremental)| full + incremental == 0) {
        return Ok(None);
    }
    let title = "Backups by the day they ended: bytes stored";
    let text = format!("{} backups in all.", report.backups.count);
    let sizes = (Size::wide(200), Size::narrow(200));
    let drawn = picture("backup-days", (title, &text), sizes, |size| {
        let buckets = buckets(&sums, size.marks_max(), |day| day.0);
        let bars: Vec<_> = buckets
            .iter()
            .map(|bucket| {
                let full: u64 = bucket.days.iter().map(|day| day.1).sum();
                let both: u64 = bucket.days.iter().map(|day| day.1 + day.2).sum();
                (at_day(bucket.from), at_day(bucket.to), full, both)
            })
            .collect();
        let y = size_axis(bars.iter().map(|bar| bar.3).max().unwrap_or(0));
        let x = day_axis(first, last, size);
        draw(size, (&x, &y), |plane| {
            for (from, to, full, both) in bars {
                let place = (from, to);
                bar(plane, place, (0.0, full as f64), ORANGE)?;
                bar(plane, place, (full as f64, both as f64), SKY)?;
            }
            Ok(())
        })
    });
    drawn.map(Some)
}

/// With a little air on both sides.
fn bar(
    plane: &mut Plane<'_, '_>,
    (from, to): (f64, f64),
    (low, high): (f64, f64),
    color: RGBColor,
) -> crate::cli::report::chart::Drawn {
    if high <= low {
        return Ok(());
    }
    let air = (to - from) * 0.12;
    let corners = [(from + air, low), (to - air, high)];
    plane.draw_series([Rectangle::new(corners, color.filled())])?;
    Ok(())
}

/// A colour, and how much of a day is of it.
type Band = (RGBColor, fn(&StorageDay) -> u64);

/// What is there today, by when it came: one band upon another.
pub fn storage(report: &Report) -> Result<Option<Markup>> {
    let days = &report.storage.days;
    let Some(last) = days.last().filter(|last| last.bytes > 0) else { return Ok(None) };
    let title = "Storage by kind, as it grew";
    let text = format!("{} today.", in_words(last.bytes));
    let bands: [Band; 4] = [
        (BLUE, |day| day.wal),
        (ORANGE, |day| day.full_backups),
        (SKY, |day| day.incremental_backups),
        (PURPLE, |day| day.other),
    ];
    let sizes = (Size::wide(240), Size::narrow(240));
    let drawn = picture("storage-days", (title, &text), sizes, |size| {
        let ends: Vec<&StorageDay> = buckets(days, size.marks_max(), |day| day.day)
            .into_iter()
            .filter_map(|bucket| bucket.days.last())
            .collect();
        let y = size_axis(last.bytes);
        let x = day_axis(days[0].day, days[days.len() - 1].day, size);
        draw(size, (&x, &y), |plane| {
            let mut low = vec![0u64; ends.len()];
            for (color, of) in bands {
                let high: Vec<u64> =
                    ends.iter().zip(&low).map(|(day, low)| low + of(day)).collect();
                let x_of = |day: &StorageDay| at_day(day.day.tomorrow().unwrap_or(day.day));
                let place = |(day, height): (&&StorageDay, &u64)| (x_of(day), *height as f64);
                let upper = ends.iter().zip(&high).map(place);
                let lower = ends.iter().zip(&low).map(place).rev();
                // The first day began with nothing.
                let band: Vec<(f64, f64)> =
                    [(x.from, 0.0)].into_iter().chain(upper).chain(lower).collect();
                if high != low {
                    plane.draw_series([Polygon::new(band, color.filled())])?;
                }
                low = high;
            }
            Ok(())
        })
    });
    drawn.map(Some)
}
