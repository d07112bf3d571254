//! Who may ask: users with passwords, said in any of the ways ClickHouse knows.

use base64::Engine as _;
use http::HeaderMap;
use roxmltree::Node;
use sha2::{Digest, Sha256};

use super::error::{ChError, code};
use super::grants::Grants;
use super::request::Ask;

/// A user.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    /// Of the password: hashes have one length, so comparing them tells nothing by its time.
    hash: [u8; 32],
    /// Whether the user's profile says `readonly`.
    pub(crate) readonly: bool,
    /// None: everything is.
    pub(crate) grants: Option<Grants>,
}

/// All users.
#[derive(Debug, Clone)]
pub(crate) struct Users(Vec<User>);

impl Users {
    /// One user, who may do everything.
    pub(crate) fn one(name: String, password: &str) -> Self {
        Self(vec![User {
            name,
            hash: hash(password),
            readonly: false,
            grants: None,
        }])
    }

    /// The users of a `users.xml`: their names, hashed passwords, grants, and whether their profile says
    /// `readonly`.
    pub(crate) fn of_xml(text: &str) -> Result<Self, String> {
        let document = roxmltree::Document::parse(text).map_err(|error| error.to_string())?;
        let root = document.root_element();
        let profiles = root.children().find(|child| child.has_tag_name("profiles"));
        let readonly = |profile: &str| text_of(child(profiles?, profile)?, "readonly");
        let mut users = Vec::new();
        let nodes = root.children().filter(|child| child.has_tag_name("users"));
        for node in nodes
            .flat_map(|users| users.children())
            .filter(Node::is_element)
        {
            if node.has_attribute("remove") {
                continue;
            }
            let name = node.tag_name().name().to_owned();
            let hash = text_of(node, "password_sha256_hex").and_then(of_hex);
            let hash =
                hash.ok_or_else(|| format!("user {name} has no valid password_sha256_hex"))?;
            let mut grants = Grants::default();
            let queries = child(node, "grants")
                .into_iter()
                .flat_map(|grants| grants.children());
            for query in queries.filter(|child| child.has_tag_name("query")) {
                grants.add(query.text().unwrap_or_default().trim())?;
            }
            let profile = text_of(node, "profile").unwrap_or_default();
            users.push(User {
                readonly: readonly(profile).is_some_and(|readonly| readonly != "0"),
                name,
                hash,
                grants: Some(grants),
            });
        }
        Ok(Self(users))
    }

    /// Checks a request. The headers `X-ClickHouse-User` and `-Key` come first, then HTTP's basic
    /// authentication, then the URL.
    pub(crate) fn check(&self, headers: &HeaderMap, ask: &Ask) -> Result<&User, ChError> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let own = (header("x-clickhouse-user"), header("x-clickhouse-key"));
        let (user, password) = match (own, header("authorization").and_then(basic)) {
            ((None, None), Some((user, password))) => (user, password),
            ((None, None), None) => (
                ask.user.clone().unwrap_or_else(|| "default".to_owned()),
                ask.password.clone().unwrap_or_default(),
            ),
            ((user, password), _) => (
                user.unwrap_or("default").to_owned(),
                password.unwrap_or_default().to_owned(),
            ),
        };
        let given = hash(&password);
        for known in &self.0 {
            let bytes = given.iter().zip(known.hash);
            let differ = bytes.fold(0, |differ, (a, b)| differ | (a ^ b));
            if differ == 0 && user == known.name {
                return Ok(known);
            }
        }
        Err(ChError::new(
            code::AUTHENTICATION_FAILED,
            format!(
                "{user}: Authentication failed: password is incorrect, or there is no user with \
                 such name"
            ),
        ))
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn child<'a, 'x>(node: Node<'a, 'x>, name: &str) -> Option<Node<'a, 'x>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn text_of<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    Some(child(node, name)?.text()?.trim())
}

/// 32 bytes, written in hexadecimal digits.
fn of_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

/// User and password of `Basic …`.
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SHA-256 of `secret`.
    const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    fn ask(user: &str, password: &str) -> Ask {
        let query = format!("user={user}&password={password}");
        Ask::read(Some(&query), &HeaderMap::new()).unwrap()
    }

    #[test]
    fn users_come_from_a_file() {
        let xml = format!(
            "<clickhouse><profiles><reads><readonly>2</readonly></reads></profiles><users>
             <default remove=\"1\"/>
             <writer><password_sha256_hex>{SECRET}</password_sha256_hex><profile>default</profile>
               <grants><query>GRANT INSERT ON a.b</query></grants></writer>
             <reader><password_sha256_hex>{SECRET}</password_sha256_hex><profile>reads</profile></reader>
             </users></clickhouse>"
        );
        let users = Users::of_xml(&xml).unwrap();
        let check = |user: &str, password: &str| {
            let found = users.check(&HeaderMap::new(), &ask(user, password));
            found.ok().map(|user| (user.readonly, user.grants.clone()))
        };
        let mut grants = Grants::default();
        grants.add("GRANT INSERT ON a.b").unwrap();
        assert_eq!(check("writer", "secret"), Some((false, Some(grants))));
        assert_eq!(
            check("reader", "secret"),
            Some((true, Some(Grants::default())))
        );
        assert_eq!(check("writer", "other"), None);
        assert_eq!(check("default", ""), None);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let user = |inner: &str| format!("<c><users><u>{inner}</u></users></c>");
        let failed = |xml: &str| Users::of_xml(xml).unwrap_err();
        assert!(failed("<c>").contains("never closed"), "{}", failed("<c>"));
        assert_eq!(failed(&user("")), "user u has no valid password_sha256_hex");
        let hash = format!("<password_sha256_hex>{SECRET}</password_sha256_hex>");
        let grants = "<grants><query>GRANT</query></grants>";
        assert_eq!(
            failed(&user(&(hash + grants))),
            "\"GRANT\" is not GRANT … ON …"
        );
    }
}
