//! Tests of the whole delivery on a memory that behaves like the host's.
