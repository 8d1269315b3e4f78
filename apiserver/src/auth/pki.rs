//! The private certificate authority, and what it issues: made once, kept in a directory that only its
//! owner can read, reused on the next start, and issued anew before it expires or when addresses change.
//!
//! Every key is written before what depends on it, and each file appears whole: a start that was cut short
//! is continued by the next.

use super::token::Tokens;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const AUTHORITY_DAYS: i32 = 3650;
const LEAF_DAYS: i32 = 365;
/// What expires within this time is issued anew.
const RENEW_DAYS: i32 = 30;

/// Everything that listeners and clients need, as text in PEM.
#[derive(Clone)]
pub struct Pki {
    /// The authority's certificate.
    pub authority: String,
    /// The apiserver's certificate and key.
    pub server: Credential,
    /// The administrator's client certificate and key.
    pub admin: Credential,
    /// The administrator's bearer token.
    pub admin_token: String,
    /// The key that signs service account tokens, PKCS#8 DER.
    pub service_account_key: Vec<u8>,
}

/// A certificate with its private key, both in PEM.
#[derive(Clone)]
pub struct Credential {
    /// The certificate.
    pub certificate: String,
    /// Its private key, PKCS#8.
    pub key: String,
}

/// Why there are no certificates, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or directory cannot be read or written.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// `read`, `write` …
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than the owner can read the keys.
    #[error(
        "{path} can be read by others (mode {mode:04o}): it holds private keys, so run `chmod 700 {path}`"
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file does not hold what it should.
    #[error(
        "{path} is damaged ({why}); restore it, or remove {} to have everything issued anew \
         (clients then need the new kubeconfig)",
        .path.parent().unwrap_or(.path).display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate cannot be made.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

impl Pki {
    /// What `directory` holds; what is missing there, about to expire, or does not fit is made.
    /// `addresses` are IP addresses or DNS names of the apiserver besides those it always has.
    pub fn open(directory: &Path, addresses: &[String], now: Timestamp) -> Result<Pki, PkiError> {
        let files = Files::open(directory)?;
        let authority = Authority::open(&files, now)?;
        let names = server_names(addresses);
        let server = authority.credential(&files, "apiserver", &names, now, || {
            let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
            params
                .distinguished_name
                .push(DnType::CommonName, "kube-apiserver");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            Ok(params)
        })?;
        let admin = authority.credential(&files, "admin", &BTreeSet::new(), now, || {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "system:admin");
            params
                .distinguished_name
                .push(DnType::OrganizationName, super::MASTERS);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            Ok(params)
        })?;
        let service_account_key = files.key("sa.key")?.serialize_der();
        Tokens::new(&service_account_key).map_err(|error| files.damaged("sa.key", error))?;
        let admin_token = files.get_or_create("admin.token", || {
            let random: [u8; 32] = rand::random();
            Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
        })?;
        if admin_token.trim().is_empty() {
            return Err(files.damaged("admin.token", "it is empty"));
        }
        Ok(Pki {
            authority: authority.certificate,
            server,
            admin,
            admin_token: admin_token.trim().to_owned(),
            service_account_key,
        })
    }

    /// A kubeconfig with everything in it, for the administrator of the apiserver at `server`
    /// (`https://127.0.0.1:6443`).
    pub fn kubeconfig(&self, server: &str) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "petset", "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(&self.authority),
            }}],
            "users": [{"name": "petset", "user": {
                "client-certificate-data": STANDARD.encode(&self.admin.certificate),
                "client-key-data": STANDARD.encode(&self.admin.key),
            }}],
            "contexts": [{"name": "petset", "context": {"cluster": "petset", "user": "petset"}}],
            "current-context": "petset",
        });
        crate::yaml::write(&config)
    }
}

/// The names under which clients reach an apiserver, sorted.
fn server_names(addresses: &[String]) -> BTreeSet<String> {
    const ALWAYS: [&str; 7] = [
        "127.0.0.1",
        "::1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let own = ALWAYS.map(str::to_owned).into_iter();
    own.chain(addresses.iter().cloned()).collect()
}

/// The certificate authority.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn open(files: &Files, now: Timestamp) -> Result<Authority, PkiError> {
        if files.get("ca.key")?.is_none() && files.get("ca.crt")?.is_some() {
            return Err(files.damaged("ca.key", "it is missing, while ca.crt is there"));
        }
        let key = files.key("ca.key")?;
        let kept = match files.get("ca.crt")? {
            Some(pem) => {
                let der = der_of(&pem).map_err(|why| files.damaged("ca.crt", why))?;
                let (_, parsed) =
                    X509Certificate::from_der(&der).map_err(|why| files.damaged("ca.crt", why))?;
                if parsed.public_key().raw != key.subject_public_key_info() {
                    return Err(files.damaged("ca.crt", "it belongs to another key than ca.key"));
                }
                lasts(&parsed, now).then_some(pem)
            }
            None => None,
        };
        let certificate = match kept {
            Some(pem) => pem,
            None => {
                let mut params = CertificateParams::default();
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
                params.distinguished_name.push(DnType::CommonName, "petset");
                valid_for(&mut params, AUTHORITY_DAYS, now);
                let pem = params.self_signed(&key)?.pem();
                files.put("ca.crt", &pem)?;
                pem
            }
        };
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Authority { certificate, issuer })
    }

    /// The credential in `NAME.crt` and `NAME.key`, issued anew unless it is good for `names` and a while.
    fn credential(
        &self,
        files: &Files,
        name: &str,
        names: &BTreeSet<String>,
        now: Timestamp,
        params: impl FnOnce() -> Result<CertificateParams, rcgen::Error>,
    ) -> Result<Credential, PkiError> {
        let (certificate_file, key_file) = (format!("{name}.crt"), format!("{name}.key"));
        let key = files.key(&key_file)?;
        let kept = files
            .get(&certificate_file)?
            .filter(|pem| self.is_good(pem, &key, names, now));
        let certificate = match kept {
            Some(pem) => pem,
            None => {
                let mut params = params()?;
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
                params.use_authority_key_identifier_extension = true;
                valid_for(&mut params, LEAF_DAYS, now);
                let pem = params.signed_by(&key, &self.issuer)?.pem();
                files.put(&certificate_file, &pem)?;
                pem
            }
        };
        Ok(Credential {
            certificate,
            key: key.serialize_pem(),
        })
    }

    fn is_good(&self, pem: &str, key: &KeyPair, names: &BTreeSet<String>, now: Timestamp) -> bool {
        let (Ok(der), Ok(authority)) = (der_of(pem), der_of(&self.certificate)) else {
            return false;
        };
        let (Ok((_, parsed)), Ok((_, authority))) = (
            X509Certificate::from_der(&der),
            X509Certificate::from_der(&authority),
        ) else {
            return false;
        };
        parsed.public_key().raw == key.subject_public_key_info()
            && parsed.verify_signature(Some(authority.public_key())).is_ok()
            && lasts(&parsed, now)
            && names_of(&parsed) == *names
    }
}

/// From yesterday, for clocks that differ, in whole days.
fn valid_for(params: &mut CertificateParams, days: i32, now: Timestamp) {
    let day = |offset: i32| {
        let date = (now + DAY * offset).to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

fn lasts(certificate: &X509Certificate<'_>, now: Timestamp) -> bool {
    let validity = certificate.validity();
    validity.not_before.timestamp() <= now.as_second()
        && validity.not_after.timestamp() > (now + DAY * RENEW_DAYS).as_second()
}

/// The DNS names and addresses that it is for.
fn names_of(certificate: &X509Certificate<'_>) -> BTreeSet<String> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension
        .iter()
        .flat_map(|extension| &extension.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(octets) => {
                let v4 = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
                let address = v4.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from));
                address.ok().map(|address| address.to_string())
            }
            _ => None,
        })
        .collect()
}

fn der_of(pem: &str) -> Result<Vec<u8>, String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|error| error.to_string())?;
    Ok(pem.contents)
}

/// The directory: 0700, its files 0600.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn open(directory: &Path) -> Result<Files, PkiError> {
        let io = |doing, source| PkiError::Io {
            doing,
            path: directory.to_owned(),
            source,
        };
        let created = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        created.map_err(|error| io("create", error))?;
        let mode = fs::metadata(directory).map_err(|error| io("read", error))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(PkiError::Exposed {
                path: directory.to_owned(),
                mode,
            });
        }
        // Nobody else could get at them through this directory, so what is wrong can be put right.
        for entry in fs::read_dir(directory)
            .map_err(|error| io("read", error))?
            .flatten()
        {
            let exposed = |metadata: fs::Metadata| metadata.is_file() && metadata.mode() & 0o077 != 0;
            if entry.metadata().is_ok_and(exposed) {
                let owners = fs::Permissions::from_mode(0o600);
                fs::set_permissions(entry.path(), owners).map_err(|error| io("repair", error))?;
            }
        }
        Ok(Files {
            directory: directory.to_owned(),
        })
    }

    fn damaged(&self, file: &str, why: impl fmt::Display) -> PkiError {
        PkiError::Damaged {
            path: self.directory.join(file),
            why: why.to_string(),
        }
    }

    fn get(&self, file: &str) -> Result<Option<String>, PkiError> {
        let path = self.directory.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(PkiError::Io {
                doing: "read",
                path,
                source,
            }),
        }
    }

    /// Written aside, then moved into place.
    fn put(&self, file: &str, text: &str) -> Result<(), PkiError> {
        let path = self.directory.join(file);
        let aside = self.directory.join(format!(".{file}.new"));
        let write = || {
            let mut options = fs::OpenOptions::new();
            let mut target = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&aside)?;
            target.set_permissions(fs::Permissions::from_mode(0o600))?;
            target.write_all(text.as_bytes())?;
            target.sync_all()?;
            fs::rename(&aside, &path)
        };
        write().map_err(|source| PkiError::Io {
            doing: "write",
            path: path.clone(),
            source,
        })
    }

    fn get_or_create(
        &self,
        file: &str,
        make: impl FnOnce() -> Result<String, PkiError>,
    ) -> Result<String, PkiError> {
        if let Some(text) = self.get(file)? {
            return Ok(text);
        }
        let text = make()?;
        self.put(file, &text)?;
        Ok(text)
    }

    /// A P-256 key.
    fn key(&self, file: &str) -> Result<KeyPair, PkiError> {
        let pem = self.get_or_create(file, || Ok(KeyPair::generate()?.serialize_pem()))?;
        KeyPair::from_pem(&pem).map_err(|error| self.damaged(file, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::User;

    fn now() -> Timestamp {
        "2026-01-02T03:04:05Z".parse().unwrap()
    }

    fn open(directory: &Path, addresses: &[&str], now: Timestamp) -> Result<Pki, PkiError> {
        let addresses: Vec<String> = addresses.iter().map(|&a| a.to_owned()).collect();
        Pki::open(&directory.join("pki"), &addresses, now)
    }

    #[test]
    fn what_was_made_once_is_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), &[], now()).unwrap();
        let second = open(directory.path(), &[], now() + DAY * 300).unwrap();
        assert_eq!(first.authority, second.authority);
        assert_eq!(first.server.certificate, second.server.certificate);
        assert_eq!(first.admin.certificate, second.admin.certificate);
        assert_eq!(first.admin_token, second.admin_token);
        assert_eq!(first.service_account_key, second.service_account_key);
    }

    #[test]
    fn only_the_owner_can_read_the_keys() {
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), &[], now()).unwrap();
        let pki = directory.path().join("pki");
        assert_eq!(fs::metadata(&pki).unwrap().mode() & 0o777, 0o700);
        for entry in fs::read_dir(&pki).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().mode() & 0o777, 0o600, "{entry:?}");
        }
        fs::set_permissions(pki.join("admin.key"), fs::Permissions::from_mode(0o644)).unwrap();
        open(directory.path(), &[], now()).unwrap();
        assert_eq!(fs::metadata(pki.join("admin.key")).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&pki, fs::Permissions::from_mode(0o755)).unwrap();
        let error = open(directory.path(), &[], now()).err().unwrap().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_certificate_is_issued_anew_before_it_expires_or_when_addresses_change() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), &[], now()).unwrap();
        let moved = open(directory.path(), &["10.1.2.3", "pets.example"], now()).unwrap();
        assert_ne!(first.server.certificate, moved.server.certificate);
        assert_eq!(first.server.key, moved.server.key);
        assert_eq!(first.admin.certificate, moved.admin.certificate);
        let der = der_of(&moved.server.certificate).unwrap();
        let names = names_of(&X509Certificate::from_der(&der).unwrap().1);
        for name in [
            "127.0.0.1",
            "::1",
            "localhost",
            "kubernetes.default.svc",
            "10.1.2.3",
            "pets.example",
        ] {
            assert!(names.contains(name), "{name} of {names:?}");
        }
        let later = open(directory.path(), &["10.1.2.3", "pets.example"], now() + DAY * 340).unwrap();
        assert_ne!(moved.server.certificate, later.server.certificate);
        assert_ne!(moved.admin.certificate, later.admin.certificate);
        assert_eq!(moved.authority, later.authority);
        let much_later = open(directory.path(), &[], now() + DAY * 3640).unwrap();
        assert_ne!(moved.authority, much_later.authority);
    }

    #[test]
    fn a_start_that_was_cut_short_is_continued() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), &[], now()).unwrap();
        for file in ["apiserver.crt", "admin.key", "admin.token"] {
            fs::remove_file(directory.path().join("pki").join(file)).unwrap();
        }
        let second = open(directory.path(), &[], now()).unwrap();
        assert_eq!(first.authority, second.authority);
        assert_ne!(first.admin.key, second.admin.key);
        assert_ne!(first.admin.certificate, second.admin.certificate);
    }

    #[test]
    fn a_damaged_file_is_named_with_the_remedy() {
        for (file, content) in [
            ("ca.key", "x"),
            ("ca.crt", "x"),
            ("sa.key", "x"),
            ("admin.token", ""),
        ] {
            let directory = tempfile::tempdir().unwrap();
            open(directory.path(), &[], now()).unwrap();
            fs::write(directory.path().join("pki").join(file), content).unwrap();
            let error = open(directory.path(), &[], now()).err().unwrap().to_string();
            assert!(error.contains(file) && error.contains("issued anew"), "{error}");
        }
        let directory = tempfile::tempdir().unwrap();
        open(directory.path(), &[], now()).unwrap();
        fs::remove_file(directory.path().join("pki/ca.key")).unwrap();
        let error = open(directory.path(), &[], now()).err().unwrap().to_string();
        assert!(error.contains("ca.key is damaged (it is missing"), "{error}");
    }

    #[test]
    fn the_admin_certificate_names_the_admin() {
        let directory = tempfile::tempdir().unwrap();
        let pki = open(directory.path(), &[], now()).unwrap();
        let user = User::from_certificate(&der_of(&pki.admin.certificate).unwrap()).unwrap();
        assert_eq!(user.name, "system:admin");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
    }

    #[test]
    fn kube_reads_the_kubeconfig() {
        let directory = tempfile::tempdir().unwrap();
        let pki = open(directory.path(), &[], now()).unwrap();
        let config = kube::config::Kubeconfig::from_yaml(&pki.kubeconfig("https://127.0.0.1:6443")).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("petset"));
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
    }
}
