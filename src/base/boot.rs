//! The clock that measures leases: the time since the machine was started, which no program can set.

use rustix::time::{ClockId, clock_gettime};

use crate::base::error::Result;

/// A moment of this machine, comparable with others of the same boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which boot of the machine; another number for each.
    pub boot: i64,
    /// Milliseconds since the machine was started, time asleep included.
    pub milliseconds: i64,
}

impl Moment {
    /// Now. An error if it cannot be told which boot this is: every lease would look as if another boot had given it.
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
        let milliseconds = time.tv_sec * 1_000 + i64::from(time.tv_nsec as i32) / 1_000_000;
        Ok(Self { boot: boot()?, milliseconds })
    }
}

/// The number of this boot: 63 bits of the kernel's random id.
#[cfg(target_os = "linux")]
fn boot() -> Result<i64> {
    use crate::base::error::Error;
    use std::io::{Error as IoError, ErrorKind};
    use std::sync::OnceLock;

    static BOOT: OnceLock<i64> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(*boot);
    }
    let path = std::path::Path::new("/proc/sys/kernel/random/boot_id");
    let failed = |error: &IoError| Error::io(path, "tell which boot of the machine this is, for leases", error);
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    match u64::from_str_radix(&digits, 16) {
        Ok(bits) if digits.len() == 16 => Ok(*BOOT.get_or_init(|| (bits >> 1).cast_signed())),
        _ => Err(failed(&IoError::from(ErrorKind::InvalidData))),
    }
}

/// There is no such id here: a lease that outlives a boot lasts until the machine has been up for as long again.
#[cfg(not(target_os = "linux"))]
fn boot() -> Result<i64> {
    Ok(0)
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
