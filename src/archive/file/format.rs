//! The two forms of a day's file, and how they are named.

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

/// The files of days in `directory`, in order; none if there is no directory. What bears another name is left alone.
pub(crate) fn list(directory: &Path) -> Result<Vec<(UtcDay, Format)>> {
    let failed = |error: std::io::Error| Error::io(directory, "list the archive", &error);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let parsed = name
            .to_str()
            .and_then(|name| name.split_once('.'))
            .and_then(|(day, format)| Some((day.parse::<UtcDay>().ok()?, Format::from_name(format)?)));
        files.extend(parsed);
    }
    files.sort_unstable();
    Ok(files)
}
