//! The integer types that can hold token ids.

/// Integer type of the ids that encoding emits. The caller chooses one that fits the vocabulary.
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
