//! The cluster's certificates and the kubeconfigs that hold them, made anew for every cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

use super::layout::{API_SERVICE_IP, HOST_IP, Layout, NODES, api_url};

/// Who has a kubeconfig of its own: its file, its user name and its group.
const CLIENTS: &[(&str, &str, &str)] = &[
    ("admin", "spanloom-admin", "system:masters"),
    (
        "kube-controller-manager",
        "system:kube-controller-manager",
        "",
    ),
    ("kube-scheduler", "system:kube-scheduler", ""),
    // kube-proxy's permissions come with the group of node proxiers' role, bound to this name.
    ("kube-proxy", "system:kube-proxy", ""),
];

/// Writes certificates, keys and kubeconfigs.
///
/// # Errors
/// When a file cannot be written.
pub fn write(layout: &Layout) -> anyhow::Result<()> {
    let authority = authority("spanloom-cluster-ca")?;
    save(&layout.pki("ca.crt"), &authority.certificate)?;

    let mut names = vec![SanType::IpAddress(HOST_IP.into())];
    names.push(SanType::IpAddress(API_SERVICE_IP.into()));
    names.push(SanType::IpAddress(Ipv4Addr::LOCALHOST.into()));
    for name in [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ] {
        names.push(SanType::DnsName(name.try_into()?));
    }
    let server = authority.issue("kube-apiserver", "", names)?;
    save_pair(layout, "apiserver", &server)?;
    let client = authority.issue(
        "kube-apiserver-kubelet-client",
        "system:masters",
        Vec::new(),
    )?;
    save_pair(layout, "apiserver-kubelet-client", &client)?;

    // Aggregated APIs trust another authority, as the API server demands.
    let front = self::authority("spanloom-front-proxy-ca")?;
    save(&layout.pki("front-proxy-ca.crt"), &front.certificate)?;
    let client = front.issue("front-proxy-client", "", Vec::new())?;
    save_pair(layout, "front-proxy-client", &client)?;

    let signer = KeyPair::generate()?;
    save(&layout.pki("service-accounts.key"), &signer.serialize_pem())?;
    save(
        &layout.pki("service-accounts.pub"),
        &signer.public_key_pem(),
    )?;

    for (who, user, group) in CLIENTS {
        let pair = authority.issue(user, group, Vec::new())?;
        save_kubeconfig(layout, who, &authority, &pair)?;
    }
    for node in NODES {
        let name = node.name();
        let sans = vec![
            SanType::IpAddress(IpAddr::V4(node.ip())),
            SanType::DnsName(name.as_str().try_into()?),
        ];
        let pair = authority.issue(&format!("system:node:{name}"), "system:nodes", sans)?;
        save_pair(layout, &name, &pair)?;
        save_kubeconfig(layout, &name, &authority, &pair)?;
    }
    Ok(())
}

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// A certificate and its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

fn authority(name: &str) -> anyhow::Result<Authority> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    Ok(Authority {
        issuer: Issuer::new(params, key),
        certificate,
    })
}

impl Authority {
    /// A certificate for client and server.
    fn issue(&self, user: &str, group: &str, names: Vec<SanType>) -> anyhow::Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if !group.is_empty() {
            let kind = DnType::OrganizationName;
            params.distinguished_name.push(kind, group);
        }
        params.subject_alt_names = names;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate()?;
        Ok(Pair {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn save_pair(layout: &Layout, name: &str, pair: &Pair) -> anyhow::Result<()> {
    save(&layout.pki(&format!("{name}.crt")), &pair.certificate)?;
    save(&layout.pki(&format!("{name}.key")), &pair.key)
}

fn save_kubeconfig(
    layout: &Layout,
    who: &str,
    authority: &Authority,
    pair: &Pair,
) -> anyhow::Result<()> {
    let encode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "spanloom", "cluster": {
            "server": api_url(),
            "certificate-authority-data": encode(&authority.certificate),
        }}],
        "users": [{"name": who, "user": {
            "client-certificate-data": encode(&pair.certificate),
            "client-key-data": encode(&pair.key),
        }}],
        "contexts": [{"name": "spanloom", "context": {"cluster": "spanloom", "user": who}}],
        "current-context": "spanloom",
    });
    // JSON is YAML.
    save(
        &layout.kubeconfig(who),
        &serde_json::to_string_pretty(&config)?,
    )
}

/// Keys are among these: nobody else reads them.
fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?
            .write_all(text.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
