//! Landlock: files out of reach without the help of namespaces (Linux 5.13, landlock(7)).
//!
//! # Theory of operation
//!
//! A Landlock domain is a list of what a process may do with files by name, and ours is empty. It can
//! only shrink, children inherit it, and it needs no privilege. What is open stays usable. Where the
//! kernel knows more (Linux 6.12: signals and abstract UNIX sockets to the outside) that is denied as
//! well. It does not hide that files exist, it does not keep other processes out of sight, and looking
//! whether a file is there remains possible. So it stands behind the empty root directory, and takes its
//! place only if the user says so.
//!
//! System calls: `landlock_create_ruleset`, `landlock_restrict_self`, before the filter.

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetError, RulesetStatus, Scope,
};

use super::error::Error;

/// Denies what this kernel can deny; false if that is nothing.
///
/// # Errors
/// The kernel has Landlock and refuses.
pub(super) fn restrict() -> Result<bool, Error> {
    let failed = |e: RulesetError| Error::Other(format!("cannot restrict access to files: {e}"));
    let ruleset = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V6))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?
            .restrict_self()
    };
    Ok(ruleset().map_err(failed)?.ruleset != RulesetStatus::NotEnforced)
}
