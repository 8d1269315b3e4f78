//! An API with nobody behind it: what is stored stays as it is.

use super::Cluster;
use serde_json::Value;

impl Cluster {
    /// `petset apiserver` and nothing else.
    pub fn api_alone() -> Self {
        let mut cluster = Self::new();
        cluster.start_as(&["apiserver"]);
        cluster
    }

    /// `kubectl create -f` of one object.
    #[track_caller]
    pub fn create(&self, object: &Value) {
        let file = self.write("object.json", &object.to_string());
        self.kubectl(&format!("create -f {}", file.display()));
    }
}
