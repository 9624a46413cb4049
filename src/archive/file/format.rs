//! The two forms of a day's file, and how they are named.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::base::time::UtcDay;

/// How a day's file is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Format {
    /// `YYYY-MM-DD.jsonl`: the lines as they are.
    #[default]
    Plain,
    /// `YYYY-MM-DD.jsonl.zst`: the lines in independent zstd frames, with a table of the frames at the end.
    Zstd,
}

impl Format {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Zstd];

    /// The suffix of the files, without the first dot; also what the manifest calls the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "jsonl",
            Self::Zstd => "jsonl.zst",
        }
    }

    /// The format that the manifest calls so.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The other one.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Plain => Self::Zstd,
            Self::Zstd => Self::Plain,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The file of `day` in `directory`.
pub(crate) fn path_of(directory: &Path, day: UtcDay, format: Format) -> PathBuf {
    directory.join(format!("{day}.{format}"))
}

/// The files in `directory` that are named like a day's, after a date that is no day of the years 1970 to 9999.
pub(crate) fn list_of_no_day(directory: &Path) -> Result<Vec<PathBuf>> {
    let is_like_a_day = |text: &str| {
        let is_in_place =
            |(place, byte): (usize, u8)| if place == 4 || place == 7 { byte == b'-' } else { byte.is_ascii_digit() };
        text.len() == 10 && text.bytes().enumerate().all(is_in_place)
    };
    let mut found = names(directory)?;
    found.retain(|name| {
        name.to_str().and_then(|name| name.split_once('.')).is_some_and(|(day, format)| {
            Format::from_name(format).is_some() && is_like_a_day(day) && day.parse::<UtcDay>().is_err()
        })
    });
    found.sort_unstable();
    Ok(found.into_iter().map(|name| directory.join(name)).collect())
}

/// The files of days in `directory`, in order; none if there is no directory. What bears another name is left alone.
pub(crate) fn list(directory: &Path) -> Result<Vec<(UtcDay, Format)>> {
    let parse = |name: OsString| {
        let (day, format) = name.to_str()?.split_once('.')?;
        Some((day.parse::<UtcDay>().ok()?, Format::from_name(format)?))
    };
    let mut files: Vec<_> = names(directory)?.into_iter().filter_map(parse).collect();
    files.sort_unstable();
    Ok(files)
}

fn names(directory: &Path) -> Result<Vec<OsString>> {
    let failed = |error: std::io::Error| Error::io(directory, "list the archive", &error);
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.file_name())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}
