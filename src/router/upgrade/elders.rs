//! Processes that have made way and still finish their work: known from one generation of processes to the next, so that
//! there are never too many. A process id is used again some day; the time of its start tells who is meant.

/// Where the next process finds them: `pid/start` with commas between.
pub(super) const VARIABLE: &str = "SPRINGTIDE_ELDERS";
/// Most that are remembered; no configuration allows as many.
const MOST: usize = 128;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elder {
    pub(super) pid: u32,
    /// In clock ticks since the system's start.
    born: u64,
}

/// Those that a predecessor has told of, itself among them.
pub(super) fn of_environment() -> Vec<Elder> {
    // Without a predecessor the variable is somebody else's.
    let has_predecessor = std::env::var_os(crate::net::heritage::PREDECESSOR).is_some();
    let text = std::env::var(VARIABLE).ok().filter(|_| has_predecessor);
    read(&text.unwrap_or_default())
}

/// Those that live.
pub(super) fn alive(elders: &[Elder]) -> Vec<Elder> {
    elders.iter().copied().filter(|elder| born(elder.pid) == Some(elder.born)).collect()
}

/// What the next process is told: `elders`, and this process.
pub(super) fn with_this_process(elders: &[Elder]) -> String {
    let pid = std::process::id();
    let this = born(pid).map(|born| Elder { pid, born });
    let all = elders.iter().copied().chain(this).map(|e| format!("{}/{}", e.pid, e.born));
    all.collect::<Vec<_>>().join(",")
}

fn read(text: &str) -> Vec<Elder> {
    let one = |text: &str| {
        let (pid, born) = text.split_once('/')?;
        Some(Elder { pid: pid.parse().ok()?, born: born.parse().ok()? })
    };
    text.split(',').filter_map(one).take(MOST).collect()
}

/// When process `pid` was started. `None`: it is not there, or has ended and nobody has asked how.
fn born(pid: u32) -> Option<u64> {
    start_of(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start of a living process, by its line in `/proc` (proc_pid_stat(5), fields 3 and 22).
fn start_of(stat: &str) -> Option<u64> {
    // The name before may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lives_is_told_from_who_has_the_same_number() {
        let told = read(&with_this_process(&[]));
        assert_eq!(told.len(), 1);
        assert_eq!(alive(&told), told, "this process lives");
        let another = Elder { born: told[0].born + 1, ..told[0] };
        assert_eq!(alive(&[another]), []);
        assert_eq!(read("1/2,x,3/,/4,5/6"), [Elder { pid: 1, born: 2 }, Elder { pid: 5, born: 6 }]);
    }

    #[test]
    fn names_may_hold_anything_and_the_dead_are_dead() {
        let fields = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18";
        assert_eq!(start_of(&format!("7 (a) b) S {fields} 4711 0")), Some(4711));
        assert_eq!(start_of(&format!("7 (a) Z {fields} 4711 0")), None);
        assert_eq!(start_of("7 (a) S 1"), None);
        assert_eq!(start_of(""), None);
    }
}
