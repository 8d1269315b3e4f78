//! Errors of the API: one variant per Kubernetes *reason*, made a `metav1.Status` in one place.
