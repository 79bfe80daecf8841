//! The format of one trace line, for the probe that writes it and the suite that reads it.
//!
//! ```text
//!   ~probe 5f0e1c22a90b7d41 3 on_request_headers headers=7 ends
//!   ~probe 5f0e1c22a90b7d41 3   get_property request.path -> 0 "/a"
//!   ~probe 5f0e1c22a90b7d41 3   end
//!          VM               context
//! ```
//!
//! `end` closes every callback, so that whoever waits for a line knows when the callback's last one is there.

use std::fmt;

/// What every line begins with, so that it is found in the log of any host.
pub const MARK: &str = "~probe ";

/// The last line of a callback that returned.
pub const END: &str = "  end";

/// The last line of a VM that was told to trap.
pub const TRAP: &str = "  trap";

/// One line, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The random id that the VM gave itself.
    pub vm: String,
    /// The context that the callback was for.
    pub context: u32,
    /// The callback, or the host call in it, indented by two.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{} {} {}", self.vm, self.context, self.text)
    }
}

impl Line {
    /// The trace line inside a log line of a host; `None` if there is none.
    pub fn find(log_line: &str) -> Option<Line> {
        let mut words = log_line.split_once(MARK)?.1.splitn(3, ' ');
        let (vm, context, text) = (words.next()?, words.next()?, words.next()?);
        Some(Line { vm: vm.to_owned(), context: context.parse().ok()?, text: text.to_owned() })
    }
}

/// The name of a status in the ABI.
pub fn status_name(status: u32) -> &'static str {
    match status {
        0 => "Ok",
        1 => "NotFound",
        2 => "BadArgument",
        3 => "SerializationFailure",
        4 => "ParseFailure",
        5 => "BadExpression",
        6 => "InvalidMemoryAccess",
        7 => "Empty",
        8 => "CasMismatch",
        9 => "ResultMismatch",
        10 => "InternalFailure",
        11 => "BrokenConnection",
        12 => "Unimplemented",
        _ => "not in the ABI",
    }
}
