//! How much a returned call survives.

/// What a returned call survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// The kill of the process; a power loss may drop what is newest.
    Normal,
    /// Power loss.
    #[default]
    Full,
}
