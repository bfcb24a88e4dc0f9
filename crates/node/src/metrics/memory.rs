//! How much memory processes and their descendants take up.

use std::collections::HashMap;

use outlive_process::ProcStat;

/// Resident bytes of each of these processes with all its descendants. Blocks while /proc is read.
#[must_use]
pub fn of_trees(roots: &[i32]) -> HashMap<i32, u64> {
    let Ok(all) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let parents: HashMap<i32, i32> =
        pids.filter_map(|pid| Some((pid, ProcStat::read(pid).ok()?.parent))).collect();
    let mut bytes: HashMap<i32, u64> = roots.iter().map(|root| (*root, 0)).collect();
    for pid in parents.keys() {
        if let Some(root) = root_of(*pid, &parents, &bytes) {
            *bytes.entry(root).or_default() += resident_bytes(*pid);
        }
    }
    bytes
}

/// How much memory the machine can still give without swapping, in bytes; `None` where it does not say.
#[must_use]
pub fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn root_of(pid: i32, parents: &HashMap<i32, i32>, roots: &HashMap<i32, u64>) -> Option<i32> {
    let mut at = pid;
    // A pid that was given again while we read could close a circle.
    for _ in 0..parents.len() {
        if roots.contains_key(&at) {
            return Some(at);
        }
        at = *parents.get(&at)?;
    }
    None
}

/// The second field of statm is resident pages (proc_pid_statm(5)); 0 for a process that is gone.
fn resident_bytes(pid: i32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))
        .ok()
        .and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or_default() * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_what_it_has_left() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn a_process_is_counted_with_what_it_has_started() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let alone = of_trees(&[pid])[&pid];
        let together = of_trees(&[own])[&own];
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(alone > 0 && together > alone, "{alone} of {together}");
        assert_eq!(of_trees(&[pid])[&pid], 0, "it is gone");
    }
}
