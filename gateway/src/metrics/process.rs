//! What the operating system says of this process, read from `/proc` (Linux).

use std::fs;
use std::path::Path;

/// Figures of the process; `None` where the system does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ProcessFigures {
    /// Memory in use that is not swapped out.
    pub(crate) resident_bytes: Option<u64>,
    /// Open file descriptors.
    pub(crate) descriptors: Option<u64>,
    /// How many may be open; `None` also for no limit.
    pub(crate) descriptors_max: Option<u64>,
}

/// Space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskSpace {
    /// What a process without privileges may still take.
    pub(crate) available_bytes: u64,
    /// All of it.
    pub(crate) total_bytes: u64,
}

impl ProcessFigures {
    /// The figures now of a process: its number, or `self`.
    pub(crate) fn of(process: &str) -> Self {
        let text = |name| fs::read_to_string(format!("/proc/{process}/{name}")).ok();
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok().map(|open| open.count() as u64);
        // The folder that is being read is one of our own, and open only for this.
        let ours = u64::from(process == "self");
        Self {
            resident_bytes: text("status").and_then(|status| resident_bytes(&status)),
            descriptors: descriptors.map(|open| open.saturating_sub(ours)),
            descriptors_max: text("limits").and_then(|limits| descriptors_max(&limits)),
        }
    }
}

impl DiskSpace {
    /// Of the file system that holds `path`; `None` if the system does not tell.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = rustix::fs::statvfs(path).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self { available_bytes: bytes(found.f_bavail), total_bytes: bytes(found.f_blocks) })
    }
}

/// The line `VmRSS:  123 kB` of proc(5), in bytes.
fn resident_bytes(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The soft limit in the line `Max open files  <soft>  <hard>  files` of proc(5).
fn descriptors_max(limits: &str) -> Option<u64> {
    let value = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(resident_bytes("VmHWM:\t  9 kB\nVmRSS:\t   1234 kB\n"), Some(1_263_616));
        assert_eq!(resident_bytes("VmHWM:\t  9 kB\n"), None);
        let limits = |soft: &str| format!("Limit  Soft Limit\nMax open files            {soft}   1048576   files\n");
        assert_eq!(descriptors_max(&limits("1024")), Some(1_024));
        assert_eq!(descriptors_max(&limits("unlimited")), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let figures = ProcessFigures::of("self");
        assert!(figures.resident_bytes.is_some_and(|bytes| bytes > 1_000_000), "{figures:?}");
        assert!(figures.descriptors.is_some_and(|open| open >= 3), "{figures:?}");
        let before = figures.descriptors;
        let files: Vec<_> = (0..40).map(|_| fs::File::open("/proc/self/status").expect("readable")).collect();
        // Other tests open and close files at the same time, but not so many.
        assert!(ProcessFigures::of("self").descriptors > before, "{} more are open", files.len());
        let space = DiskSpace::of(Path::new("/")).expect("a file system");
        assert!(space.available_bytes <= space.total_bytes && space.total_bytes > 0, "{space:?}");
    }
}
