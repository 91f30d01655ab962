//! The machine: kernel, memory, disk, limit of open files.

use std::fs;
use std::path::Path;

use crate::metrics::{DiskSpace, ProcessFigures};

/// What the system says; `zone` is the zone's folder, if it is known.
pub(super) fn shown(zone: Option<&Path>) -> String {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let first_line = |path: &str| text(path).lines().next().unwrap_or("unknown").to_owned();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut lines = vec![
        format!("kernel {} {}", first_line("/proc/sys/kernel/ostype"), first_line("/proc/sys/kernel/osrelease")),
        format!("processors {processors}"),
        format!("load {}", first_line("/proc/loadavg")),
    ];
    lines.extend(text("/etc/os-release").lines().filter(|line| line.starts_with("PRETTY_NAME=")).map(str::to_owned));
    let memory = ["MemTotal:", "MemAvailable:", "SwapTotal:", "SwapFree:"];
    let meminfo = text("/proc/meminfo");
    lines.extend(meminfo.lines().filter(|line| memory.iter().any(|name| line.starts_with(name))).map(str::to_owned));
    lines.push(match zone.map(nearest).and_then(DiskSpace::of) {
        Some(space) => format!("zone's disk: {} bytes available of {}", space.available_bytes, space.total_bytes),
        None => "zone's disk: unknown".to_owned(),
    });
    lines.push(descriptors("this command", ProcessFigures::of("self")));
    if let Some(holder) = zone.and_then(super::zone_folder::holder) {
        lines.push(descriptors("the zone's holder", ProcessFigures::of(&holder.to_string())));
    }
    lines.join("\n") + "\n"
}

/// `path`, or what there is of the way to it.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|one| one.exists()).unwrap_or(path)
}

fn descriptors(who: &str, figures: ProcessFigures) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
    let (open, most) = (number(figures.descriptors), number(figures.descriptors_max));
    format!("open files of {who}: {open} of at most {most}; resident memory {} bytes", number(figures.resident_bytes))
}
