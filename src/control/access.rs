//! What which user may do: to look at the daemon, or to act on entries too.

use super::account_names;

/// What a user may do; the later includes the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Look at the daemon, its entries and the audit trail.
    View,
    /// Retry and discard entries too.
    Operate,
}

/// The groups whose members may do something (`control.view_group`, `control.operator_group`).
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    /// Its members may look.
    pub(crate) view: String,
    /// Its members may look and act.
    pub(crate) operator: String,
}

/// Who may do what. Root and the user that the daemon runs as may do all.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    groups: Groups,
    view: Option<u32>,
    operator: Option<u32>,
    own: u32,
}

impl Access {
    /// Looks the groups up. One that the system does not know, or does not tell of within 2 s, has
    /// no members, which is logged.
    pub(crate) async fn resolve(groups: Groups) -> Self {
        let (view, operator) = (groups.view.clone(), groups.operator.clone());
        let (view, operator) = account_names::within(move || {
            (account_names::group(&view), account_names::group(&operator))
        })
        .await
        .unwrap_or_default();
        let missing = [(view, &groups.view), (operator, &groups.operator)];
        let missing: Vec<_> =
            missing.into_iter().filter(|(gid, _)| gid.is_none()).map(|(_, name)| &**name).collect();
        if !missing.is_empty() {
            tracing::info!(
                groups = missing.join(", "),
                "Groups for the control socket were not found; they have no members until a restart"
            );
        }
        Self { groups, view, operator, own: nix::unistd::Uid::effective().as_raw() }
    }

    /// What a user with these groups may do.
    pub(super) fn role(&self, uid: u32, groups: &[u32]) -> Option<Role> {
        let is_in = |group: Option<u32>| group.is_some_and(|group| groups.contains(&group));
        if self.is_trusted(uid) || is_in(self.operator) {
            Some(Role::Operate)
        } else {
            is_in(self.view).then_some(Role::View)
        }
    }

    /// Whether this is root or the daemon's own user.
    pub(super) const fn is_trusted(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own
    }

    /// What a user is answered who may not do this, with what to do about it.
    pub(super) fn refusal(&self, uid: u32, wanted: Role) -> String {
        let (what, group, gid) = match wanted {
            Role::View => ("look at the daemon", &self.groups.view, self.view),
            Role::Operate => ("act on entries", &self.groups.operator, self.operator),
        };
        let step = if gid.is_some() {
            format!("add the user to the group {group} (usermod -aG {group} NAME) and log in again")
        } else {
            format!(
                "create the group {group}, add the user, log in again and restart the daemon; \
                 or be root"
            )
        };
        format!("the user with uid {uid} may not {what}: {step}")
    }

    #[cfg(test)]
    pub(super) fn of(view: Option<u32>, operator: Option<u32>, own: u32) -> Self {
        let groups = Groups { view: "lookers".to_owned(), operator: "doers".to_owned() };
        Self { groups, view, operator, own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_follow_from_groups_and_from_nothing_else() {
        let access = Access::of(Some(50), Some(60), 900);
        let cases: [(u32, &[u32], Option<Role>); 10] = [
            (0, &[], Some(Role::Operate)),
            (900, &[], Some(Role::Operate)),
            (1000, &[], None),
            (1000, &[900, 0, 1000], None),
            (50, &[60 + 50], None),
            (1000, &[50], Some(Role::View)),
            (1000, &[7, 8, 50], Some(Role::View)),
            (1000, &[60], Some(Role::Operate)),
            (1000, &[50, 60], Some(Role::Operate)),
            (1000, &[60, 50], Some(Role::Operate)),
        ];
        for (uid, groups, role) in cases {
            assert_eq!(access.role(uid, groups), role, "uid {uid} in {groups:?}");
        }
    }

    #[test]
    fn missing_group_has_no_members() {
        let access = Access::of(None, None, 900);
        assert_eq!(access.role(1000, &[0, 50, 60, u32::MAX]), None);
        assert!(access.refusal(1000, Role::View).contains("create the group lookers"));
    }

    #[tokio::test]
    async fn groups_are_found_by_name() {
        let groups = Groups { view: "root".to_owned(), operator: "no-such-group-here".to_owned() };
        let access = Access::resolve(groups).await;
        assert_eq!((access.view, access.operator), (Some(0), None));
    }
}
