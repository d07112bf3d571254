use super::*;

#[track_caller]
fn check_cuts(text: &str, expect: &[(&str, &str)]) {
    let tag = Tag::read(text);
    let cuts: Vec<_> = tag.iter().flat_map(Tag::cuts).collect();
    assert_eq!(cuts, expect, "{text}");
}

#[test]
fn a_key_may_contain_an_equals_sign() {
    check_cuts("a=b", &[("a", "b")]);
    check_cuts("a=", &[("a", "")]);
    check_cuts("a=b=c", &[("a", "b=c"), ("a=b", "c")]);
    check_cuts("=b=c", &[("=b", "c")]);
    check_cuts("=b", &[]);
    check_cuts("a", &[]);
    check_cuts("", &[]);
    check_cuts("ü=💡=", &[("ü", "💡="), ("ü=💡", "")]);
    let many = "=".repeat(100);
    assert_eq!(Tag::read(&many).unwrap().cuts().count(), CUTS_MAX);
}

#[test]
fn a_key_may_reach_into_a_map() {
    let check = |key: &str, expect: &[(&str, &str)]| {
        assert_eq!(paths(key).collect::<Vec<_>>(), expect, "{key}");
    };
    check("a", &[]);
    check("a.b.c", &[("a", "b.c"), ("a.b", "c")]);
    check(".a", &[]);
    check("a.", &[]);
    check(
        "a.b.c.d.e",
        &[("a", "b.c.d.e"), ("a.b", "c.d.e"), ("a.b.c", "d.e")],
    );
}

#[test]
fn parts_that_no_writer_escapes() {
    assert_eq!(never_escaped("host.name"), "host.name");
    assert_eq!(never_escaped("a/bcd\"e"), "bcd");
    assert_eq!(never_escaped("naïves"), "ves");
    assert_eq!(never_escaped("💡"), "");
    assert_eq!(never_escaped(""), "");
}

#[test]
fn numbers() {
    use value::Number;
    let check = |text: &str, int: Option<i64>, double: Option<f64>| {
        let number = Number::of(text);
        assert_eq!(number.and_then(Number::int), int, "{text}");
        assert_eq!(number.map(Number::double), double, "{text}");
    };
    check("3", Some(3), Some(3.0));
    check("3.0", Some(3), Some(3.0));
    check("-0.0", Some(0), Some(0.0));
    check("1e21", None, Some(1e21));
    check("1.5", None, Some(1.5));
    check(
        "9223372036854775807",
        Some(i64::MAX),
        Some(9_223_372_036_854_775_808.0),
    );
    check("inf", None, None);
    check("NaN", None, None);
    check("1e999", None, None);
    check("", None, None);
}
