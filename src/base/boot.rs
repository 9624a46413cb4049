//! The clock that measures leases: the time since the machine was started, which no program can set.

use std::path::Path;
use std::sync::OnceLock;

use rustix::time::{ClockId, clock_gettime};

use crate::base::error::{Error, Result};

/// A moment of this machine, comparable with others of the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which boot of the machine; another number for each.
    pub boot: i64,
    /// Milliseconds since the machine was started, time asleep included.
    pub milliseconds: i64,
}

impl Moment {
    /// Now; an error if it cannot be learned which boot this is. A guess would end every lease.
    pub fn now() -> Result<Self> {
        #[cfg(test)]
        if let Some(moment) = tests::SET.get() {
            return Ok(moment);
        }
        #[cfg(target_os = "linux")]
        let clock = ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = ClockId::Monotonic;
        let time = clock_gettime(clock);
        Ok(Self { boot: boot()?, milliseconds: time.tv_sec * 1_000 + i64::from(time.tv_nsec as i32) / 1_000_000 })
    }
}

/// The number of this boot: 63 bits of the kernel's random id. 0 where the system has none.
fn boot() -> Result<i64> {
    static BOOT: OnceLock<i64> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(*boot);
    }
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Error::io(path, "read the id of this boot", &error)),
    };
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    let boot = u64::from_str_radix(&digits, 16).map_or(0, |bits| (bits >> 1).cast_signed());
    Ok(*BOOT.get_or_init(|| boot))
}

/// The clock that tests set.
#[cfg(test)]
pub(crate) mod tests {
    use super::Moment;
    use std::cell::Cell;

    thread_local! {
        /// What the clock shows in this thread; None: the time.
        pub(crate) static SET: Cell<Option<Moment>> = const { Cell::new(None) };
    }

    #[test]
    fn the_clock_goes_on_within_a_boot() {
        let (earlier, later) = (Moment::now().unwrap(), Moment::now().unwrap());
        assert_eq!(earlier.boot, later.boot);
        assert!(earlier.milliseconds > 0 && earlier.milliseconds <= later.milliseconds);
    }
}
