//! The input as a script: what it lacks at its end reads as zero.

use std::ops::Range;

pub struct Script<'input>(&'input [u8]);

impl<'input> Script<'input> {
    pub fn new(input: &'input [u8]) -> Self {
        Self(input)
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Up to 32 KiB: twice a record.
    pub fn length(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]) & 0x7fff)
    }

    /// Up to so many bytes.
    pub fn bytes(&mut self, length: usize) -> &'input [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Some of so many.
    pub fn range(&mut self, length: usize) -> Range<usize> {
        let start = self.length().min(length);
        start..(start + self.length()).min(length)
    }
}
