//! The integer types that token ids are written as.

/// Type of an emitted id; the caller picks one that holds the vocabulary.
pub trait Id: Copy + Default + Send + Sync + 'static {
    fn from_u32(id: u32) -> Self;
}

impl Id for u16 {
    fn from_u32(id: u32) -> Self {
        id as u16
    }
}

impl Id for u32 {
    fn from_u32(id: u32) -> Self {
        id
    }
}
