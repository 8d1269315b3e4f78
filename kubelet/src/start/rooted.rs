//! What changes for a container whose root is an image's: its root, its user, its environment, where it starts.

use super::Start;
use crate::environment;
use crate::image::Resolved;
use crate::image::user::{self, User};
use crate::shim::protocol::{Isolation, Root, Spec};
use std::fs;
use std::path::Path;

impl Start {
    /// Who the image's program runs as; `None` for programs of the host. `Err` is for `CreateContainerConfigError`.
    pub(super) fn image_user(&self, image: &Resolved) -> Result<Option<User>, String> {
        user::check_non_root(&self.pod, &self.container, image.user.as_deref())?;
        let (Root::Layers(layers), Some(of_image)) = (&image.root, &image.user) else {
            return Ok(None);
        };
        let (wanted, group) = user::wanted(&self.pod, &self.container, of_image);
        let mut found = user::find(layers, &wanted)?;
        found.gid = group.unwrap_or(found.gid);
        Ok(Some(found))
    }

    /// Make `spec` one of the image, and note that this image is in use. `Err` is for `CreateContainerConfigError`.
    pub(super) fn rooted(
        &self,
        image: &Resolved,
        user: Option<User>,
        isolation: Isolation,
        spec: &mut Spec,
    ) -> Result<(), String> {
        let directory = self.directory();
        match &image.image {
            Some(id) => {
                let store = self.kubelet.catalog.store();
                store.hold(id, &directory).map_err(|error| error.to_string())?;
            }
            // From an earlier instance, if there is one.
            None => drop(fs::remove_file(directory.join("image"))),
        }
        let Some(found) = user else { return Ok(()) };
        if isolation == Isolation::None {
            return Err(format!(
                "image {:?} has a root directory of its own, and pods have no mount namespaces here (petset status says \
                 why): remove the image (petset image rm) to run the host's program instead",
                self.image()
            ));
        }
        spec.root = image.root.clone();
        spec.user = Some(found.uid);
        spec.group = Some(found.gid);
        spec.groups.extend(found.groups);
        let directory = image.working_dir.as_ref().map(Into::into);
        spec.working_dir = spec.working_dir.take().or(directory);
        // One is always set; that of an image counts more, and that of the container most.
        let sets_path = self
            .container
            .env
            .iter()
            .flatten()
            .any(|variable| variable.name == "PATH");
        spec.env
            .retain(|(name, value)| name != "PATH" || sets_path || value != environment::PATH);
        let home = ("HOME".to_owned(), found.home);
        for (name, value) in image.defaults.iter().rev().chain([&home]) {
            if !spec.env.iter().any(|(known, _)| known == name) {
                spec.env.push((name.clone(), value.clone()));
            }
        }
        // How the host finds names is nothing to an image.
        let hosts_own = self.kubelet.pod_directory(&self.pod).join("etc/nsswitch.conf");
        let is_hosts_own = |source: &Path| source == hosts_own;
        spec.mounts.retain(|mount| !is_hosts_own(&mount.source));
        Ok(())
    }
}
