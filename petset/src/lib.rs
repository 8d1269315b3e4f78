//! petset library
