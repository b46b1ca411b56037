//! Who may do what: the kernel lets readers in by the socket's mode and group, writers are known by their user id.

use nix::unistd::{Uid, User, geteuid};

/// The users who may change something, besides root.
#[derive(Debug, Clone, Copy)]
pub struct Rights {
    own: Uid,
    operator: Option<Uid>,
}

impl Rights {
    /// Root, the user that this program runs as, and the `operator` by user name.
    ///
    /// # Errors
    /// When there is no such user or the user database does not answer.
    pub fn new(operator: Option<&str>) -> Result<Self, RightsError> {
        let operator = operator.map(uid_of).transpose()?;
        Ok(Self { own: geteuid(), operator })
    }

    pub(super) fn may_write(&self, uid: Uid) -> bool {
        uid.is_root() || uid == self.own || Some(uid) == self.operator
    }
}

/// Why the operator is not known.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// No user has this name.
    #[error("the operator {0:?} is no user of this machine; create the user or change \"operator\"")]
    NoSuchUser(String),
    /// The user database does not answer.
    #[error("failed to look up the operator {name:?}")]
    Lookup {
        /// The user name.
        name: String,
        /// What the system says.
        source: nix::errno::Errno,
    },
}

fn uid_of(name: &str) -> Result<Uid, RightsError> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid),
        Ok(None) => Err(RightsError::NoSuchUser(name.to_owned())),
        Err(source) => Err(RightsError::Lookup { name: name.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_own_user_and_operator_may_write() {
        let rights = Rights { own: Uid::from_raw(990), operator: Some(Uid::from_raw(1000)) };
        for (uid, may) in [(0, true), (990, true), (1000, true), (1001, false), (65534, false)] {
            assert_eq!(rights.may_write(Uid::from_raw(uid)), may, "{uid}");
        }
    }

    #[test]
    fn without_operator_nobody_else_may_write() {
        let rights = Rights { own: Uid::from_raw(990), operator: None };
        assert!(!rights.may_write(Uid::from_raw(1000)));
    }

    #[test]
    fn operator_is_looked_up_by_name() {
        assert_eq!(Rights::new(Some("root")).unwrap().operator, Some(Uid::from_raw(0)));
        let error = Rights::new(Some("no-such-user-here")).unwrap_err().to_string();
        assert!(error.contains("\"no-such-user-here\""), "{error}");
    }
}
