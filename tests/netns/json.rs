//! Just enough JSON to read what `ip -j` and `iperf3 -J` print.

/// A parsed value. Access to something that is not there is [`Json::Null`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a text; fails the test if it is not JSON.
    #[track_caller]
    pub(crate) fn parse(text: &str) -> Json {
        let mut rest = text;
        value(&mut rest).unwrap_or_else(|| panic!("not JSON at {rest:.40?}: {text}"))
    }

    /// Member of an object.
    pub(crate) fn at(&self, key: &str) -> &Json {
        match self {
            Json::Object(members) => {
                members.iter().find(|(k, _)| k == key).map_or(&Json::Null, |(_, v)| v)
            }
            _ => &Json::Null,
        }
    }

    /// Elements of an array.
    pub(crate) fn items(&self) -> &[Json] {
        if let Json::Array(items) = self { items } else { &[] }
    }

    /// A string, or "".
    pub(crate) fn str(&self) -> &str {
        if let Json::String(s) = self { s } else { "" }
    }

    /// A number.
    pub(crate) fn number(&self) -> Option<f64> {
        if let Json::Number(n) = self { Some(*n) } else { None }
    }
}

fn value(s: &mut &str) -> Option<Json> {
    *s = s.trim_start();
    let word = |s: &mut &str, w: &str, v| s.strip_prefix(w).map(|r| *s = r).map(|()| v);
    match s.chars().next()? {
        '{' => list(s, '}', member).map(Json::Object),
        '[' => list(s, ']', value).map(Json::Array),
        '"' => string(s).map(Json::String),
        't' => word(s, "true", Json::Bool(true)),
        'f' => word(s, "false", Json::Bool(false)),
        'n' => word(s, "null", Json::Null),
        _ => {
            let end = s.find(|c: char| !"+-.eE0123456789".contains(c)).unwrap_or(s.len());
            let (number, rest) = s.split_at(end);
            *s = rest;
            number.parse().ok().map(Json::Number)
        }
    }
}

fn list<T>(s: &mut &str, end: char, one: fn(&mut &str) -> Option<T>) -> Option<Vec<T>> {
    *s = s[1..].trim_start();
    let mut all = Vec::new();
    loop {
        if let Some(rest) = s.strip_prefix(end) {
            *s = rest;
            return Some(all);
        }
        all.push(one(s)?);
        *s = s.trim_start();
        *s = s.strip_prefix(',').unwrap_or(s).trim_start();
    }
}

fn member(s: &mut &str) -> Option<(String, Json)> {
    let key = string(s)?;
    *s = s.trim_start().strip_prefix(':')?;
    Some((key, value(s)?))
}

fn string(s: &mut &str) -> Option<String> {
    let mut chars = s.strip_prefix('"')?.char_indices();
    let mut text = String::new();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => {
                *s = &s[1 + i + 1..];
                return Some(text);
            }
            '\\' => text.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                other => other, // \u escapes do not occur in what we read
            }),
            c => text.push(c),
        }
    }
    None
}

#[test]
fn reads_what_ip_prints() {
    let v =
        Json::parse(r#"[{},{"mtu":65520,"flags":["UP"],"a":{"b":"x\"y"},"t":true,"n":-1.5e1}]"#);
    assert_eq!(v.items()[1].at("mtu").number(), Some(65520.0));
    assert_eq!(v.items()[1].at("flags").items()[0].str(), "UP");
    assert_eq!(v.items()[1].at("a").at("b").str(), "x\"y");
    assert_eq!(v.items()[1].at("n").number(), Some(-15.0));
    assert_eq!(v.items()[0].at("nothing"), &Json::Null);
}
