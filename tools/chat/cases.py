# SPDX-License-Identifier: Apache-2.0
"""Small templates, each about one feature; (template, context). Jinja2 gives the expected text."""

CASES = []
ERROR_CASES = []


def case(template, **context):
    CASES.append((template, context))


def values(expressions, **context):
    """One case for each expression, printed between bars."""
    for expression in expressions:
        case("|{{ " + expression + " }}|", **context)


def error(template, **context):
    ERROR_CASES.append((template, context))


DATA = {
    "s": "Hello, World", "t": "  spaced\tout \n", "u": "äöü ß 漢字 👍🏽", "e": "", "n": 5, "z": 0, "neg": -3, "f": 2.5,
    "yes": True, "no": False, "nil": None, "l": [3, 1, 2], "w": ["b", "A", "c", "a"], "d": {"a": 1, "b": [1, {"c": None}], "items": 7},
    "m": [{"role": "user", "x": {"y": 1}}, {"role": "tool", "x": {"y": 2}}, {"role": "user"}], "q": "it's \"q\"",
}

# literals, printing
values(["1", "-1", "+1", "1.0", "1.5e3", "1e16", "1e-5", "1_000", "'a' 'b'", "\"a'b\"", "'a\"b'", "'\\n\\t\\\\\\'\\x41\\u00e4\\101\\q'",
        "true", "True", "false", "none", "None", "[]", "()", "{}", "[1, 'a', none, true, 1.0]", "(1,)", "(1, 2)", "1, 2",
        "{'a': 1, 'b': [2]}", "{1: 2, none: 3, true: 4}", "['it\\'s', 'a\"b\\'c', 'tab\\t', '\\x7f\\u00a0é漢']", "undefined_name", "[undefined_name]",
        "''", "(1)", "[1, 2,]", "{'a': 1,}", "0.1 + 0.2", "100000000000000000000.0", "1e300 * 1e10", "123456789 * 987654321"])
# operators
values(["1 + 2 * 3", "(1 + 2) * 3", "7 / 2", "7 // 2", "-7 // 2", "7 % 3", "-7 % 3", "7.5 // 2", "-7.5 % 2", "2 ** 10", "2 ** -1", "2 ** 3 ** 2", "4 / 2",
        "1 + true", "'a' + 'b'", "'ab' * 3", "3 * 'ab'", "[1] + [2]", "[0] * 3", "(1,) + (2,)", "'a' ~ 1 ~ none ~ 1.0 ~ true", "'x' ~ undefined_name",
        "1 < 2", "2 <= 2", "'a' < 'b'", "1 < 2 < 3", "3 > 2 > 2", "1 == 1.0", "1 == true", "'1' == 1", "none == none", "undefined_name == none", "undefined_name == other_name",
        "[1, 2] == [1, 2]", "[1] == (1,)", "{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", "1 != 2", "not 1", "not not 0", "not 1 == 2", "1 in [1, 2]", "3 not in [1, 2]",
        "'ell' in s", "'' in s", "'a' in d", "'zz' in d", "1 in undefined_name", "yes and no", "no or 'x'", "1 and 2 and 3", "0 or '' or none", "1 or undefined_name.x",
        "'y' if yes else 'n'", "'y' if no else 'n'", "'y' if no", "1 if no else 2 if no else 3", "-n", "- -n", "-f|abs", "-3|abs", "(-3)|abs", "not no and yes", "1 + 1 if yes else 0",
        "n + f", "n is defined and n > 3", "1 <= n <= 9", "'%s-%d' % ('a', 3)", "'%05.1f|%-4s|%r' % (2.345, 'x', 'y')", "'%s' % n", "[1, 2] < [1, 3]", "1 in (1, 2)", "l[0] - l[1] - l[2]",
        "2 * 3 % 4", "10 - 2 - 3", "10 - (2 - 3)", "'a' 'b' ~ 'c'", "n // 0.3", "1.0 // 0.1", "7 % -3", "true and 'x'"], **DATA)
# access and slices
values(["d.a", "d['a']", "d.zz", "d['zz']", "d.b[1].c", "d.b.0", "l.0", "l[-1]", "l[9]", "s[0]", "s[-1]", "u[1]", "u[-1]", "m[0].x.y", "m[0]['x']['y']", "(d.b)[0]", "d['items']",
        "s[1:4]", "s[:-1]", "s[::-1]", "s[::2]", "s[5:1:-2]", "s[100:]", "s[-100:3]", "u[2:]", "u[::-1]", "u[:-2]", "l[::-1]", "l[1:]", "l[:0]", "(1, 2, 3)[1:]", "l[none:none]", "l[:1] + l[2:]",
        "nil.x", "n.x", "s.nothing", "d.b[5]", "[1, 2, 3][n - 4]", "'abc'[1]", "{'a': {'b': 'c'}}.a.b", "d.get('a')", "d.get('zz')", "d.get('zz', 3)", "d.items() | list", "d.keys() | list", "d.values() | list | length",
        "d.items is callable", "d['a'] + 1", "m[-1].role", "none[1:] is defined", "'abc'['a':] is defined", "l[true]"], **DATA)
# string methods
values(["t.strip()", "t.lstrip()", "t.rstrip()", "'xxaxx'.strip('x')", "'xyaxy'.lstrip('yx')", "u.strip('ä')", "s.split()", "s.split(', ')", "'a,b,c'.split(',', 1)", "'a,b,c'.rsplit(',', 1)", "'a b  c'.rsplit(none, 1)", "'  a b  c '.split()",
        "' a  b c '.split(none, 1)", "''.split()", "''.split(',')", "'a,,b'.split(',')", "'a,b,c'.split(',', maxsplit=1)", "'a--b'.split('--')[-1]", "s.startswith('Hell')", "s.endswith('d')", "s.startswith(('x', 'H'))", "s.replace('l', 'L')", "s.replace('l', 'L', 1)", "'aaa'.replace('', '-')",
        "s.upper()", "s.lower()", "u.upper()", "'ÄÖÜ'.lower()", "'hELLO wORLD'.title()", "\"it's\".title()", "'hELLO'.capitalize()", "s.find('o')", "s.find('zz')", "u.find('漢')", "s.rfind('o')", "s.count('l')", "'-'.join(['a', 'b'])", "', '.join(d)",
        "'a\\nb\\r\\nc\\n'.splitlines()", "'a\\nb'.splitlines(true)", "'abc'.removeprefix('a')", "'abc'.removesuffix('bc')", "'12'.isdigit()", "'a1'.isdigit()", "'ab'.isalpha()", "' '.isspace()", "'ab'.isupper()", "'{} and {}'.format(1, 'x')", "'{0}{1}{0}'.format('a', 'b')", "'{a}{{}}'.format(a=1)",
        "'\u00a0\u2003x\u3000'.strip()", "s.index('W')", "s.lower().split('l')", "'a' 'b'.upper()", "'x'.join([])", "u.split(' ')"], **DATA)
# filters
values(["s | length", "u | length", "d | length", "undefined_name | length", "l | count", "t | trim", "'xax' | trim('x')", "s | upper | lower", "n | string ~ 'x'", "'12' | int + 1", "' 12 ' | int", "'1.9' | int", "'x' | int", "'x' | int(7)", "'ff' | int(base=16)", "'0x1f' | int(0, 16)", "2.9 | int", "-2.9 | int", "'2.5' | float", "'x' | float", "'x' | float(1.5)", "'nan' | float", "'1e400' | float", "none | int", "[] | int(3)", "true | int", "n | float",
        "l | join(', ')", "l | join", "m | join('-', attribute='role')", "[1, none, 'a', 1.5] | join('|')", "'abc' | join('.')", "l | first", "l | last", "[] | first", "[] | last", "'abc' | first", "d | first", "l | reverse | list", "'abc' | reverse", "l | sort", "w | sort", "w | sort(case_sensitive=true)", "l | sort(reverse=true)", "m | sort(attribute='role') | map(attribute='role') | list",
        "w | unique | list", "[1, 2, 1] | unique | list", "l | min", "l | max", "l | sum", "m[:2] | sum(attribute='x.y')", "{'b': 1, 'a': 2} | dictsort", "{'b': 1, 'a': 2} | dictsort(by='value')", "{'b': 1, 'a': 2} | dictsort(reverse=true)",
        "e | default('x')", "e | default('x', true)", "nil | default('x')", "undefined_name | default('x')", "undefined_name | d('x')", "undefined_name | default", "d.zz | default(0) + 1", "none | d('x', boolean=true)",
        "d | tojson", "u | tojson", "q | tojson", "'<b>&\\'' | tojson", "'\\x01\\n\\x7f\\u2028' | tojson", "[1, 2.0, none, true, 'x'] | tojson", "d | tojson(indent=2)", "[] | tojson(indent=2)", "[[], {}, [1]] | tojson(indent=1)", "u | tojson(ensure_ascii=true)", "{'b': 1, 'a': 2} | tojson(sort_keys=true)", "d | tojson(separators=(',', ':'))", "(1, 2) | tojson", "{1: 2, none: 3, true: 4, 1.5: 5} | tojson", "1e22 | tojson", "('nan' | float) | tojson", "0.1 | tojson", "9223372036854775807 | tojson",
        "d | items | list", "undefined_name | items | list", "w | map('upper') | list", "w | map('replace', 'a', 'z') | join", "m | map(attribute='role') | list", "m[:2] | map(attribute='x.y') | list", "m | map(attribute='zz', default='-') | list", "m | selectattr('role', 'equalto', 'user') | list | length", "m | selectattr('role', '==', 'tool') | map(attribute='x') | first", "m | rejectattr('role', 'eq', 'user') | list | length", "m | selectattr('x') | list | length", "m | selectattr('x', 'defined') | list | length", "m | rejectattr('x', 'undefined') | list | length", "[0, 1, '', 'a'] | select | list", "[1, 2, 3, 4] | select('odd') | list", "[1, 2, 3, 4] | reject('gt', 2) | list", "[1, 'a', none] | select('string') | list", "[1, 2] | select('in', [2, 3]) | list",
        "2.5 | round", "3.5 | round", "-2.5 | round", "2.567 | round(2)", "2.5 | round | int", "7 | round", "1234.5 | round(-2)", "2.1 | round(method='ceil')", "2.9 | round(0, 'floor')", "2.675 | round(2)", "s | capitalize", "'hello world-foo (bar)' | title", "\"it's o'clock\" | title", "s | replace('o', '0')", "s | replace('o', '0', 1)", "12 | replace('1', 'x')", "'a\\nb\\n\\nc' | indent", "'a\\nb' | indent(2, true)", "'a\\n\\nb' | indent(2, blank=true)", "'a\\nb' | indent('> ')", "'<&\"\\'>' | escape", "'a b, c' | wordcount", "'%s=%s' | format('a', 1)", "s | safe", "s | list", "d | list", "(1, 2) | list", "s | string | length", "3 | string | length", "'a' | upper ~ 'b' | upper", "n | abs", "[3, [1, 2]] | last | first", "nil | string", "undefined_name | string", "l | string", "'ß' | upper", "'ABC' | lower | first"], **DATA)
# tests
values([f"{what} is {test}" for what in ["n", "f", "s", "l", "d", "nil", "yes", "undefined_name", "(1, 2)"]
        for test in ["string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean", "none", "defined"]], **DATA)
values(["n is not none", "n is eq 5", "n is eq(5)", "n is equalto 5", "n is ne 5", "n is gt 4", "n is lessthan 4", "n is ge 5", "n is le 5", "n is odd", "n is even", "n is divisibleby 5", "n is divisibleby(2)", "yes is true", "no is false", "yes is false", "1 is true", "n is in [5, 6]", "n is in l", "'a' is in 'abc'",
        "n is sameas n", "'abc' is lower", "'ABC' is upper", "range is callable", "n is undefined", "not n is undefined", "n is defined and f is defined", "undefined_name is not defined or n", "n + 1 is odd", "s is string and s", "d.a is defined", "d.zz is defined", "m[2].x is undefined", "m[2].x is none", "nil is none"], **DATA)
# for
case("{% for x in l %}{{ x }},{% endfor %}", **DATA)
case("{% for x in [] %}x{% else %}none{% endfor %}")
case("{% for x in undefined_name %}x{% else %}none{% endfor %}")
case("{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }};{% endfor %}", **DATA)
case("{% for x in l %}{{ loop.previtem }}<{{ x }}<{{ loop.nextitem }};{% endfor %}", **DATA)
case("{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is undefined }}{% endfor %}", **DATA)
case("{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}", **DATA)
case("{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", **DATA)
case("{% for k, v in d | items %}{{ k }}={{ v }};{% endfor %}", **DATA)
case("{% for k in d %}{{ k }}{% endfor %}", **DATA)
case("{% for (a, b) in [(1, 2), [3, 4]] %}{{ a + b }} {% endfor %}")
case("{% for a, b in ['xy', 'zw'] %}{{ b }}{{ a }}{% endfor %}")
case("{% for c in u %}[{{ c }}]{% endfor %}", **DATA)
case("{% for x in l if x > 1 %}{{ loop.index }}:{{ x }} {% endfor %}", **DATA)
case("{% for x in l if x > 9 %}x{% else %}e{% endfor %}", **DATA)
case("{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x > 4 %}{% break %}{% endif %}{{ x }}{% endfor %}")
case("{% for x in range(3) %}{% for y in range(3) %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{{ loop.index }};{% endfor %}")
case("{% for x in range(2) %}{% for y in range(2) %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}{% endfor %}")
case("{% for i in range(5, 0, -2) %}{{ i }}{% endfor %}|{% for i in range(2, 4) %}{{ i }}{% endfor %}|{% for i in range(3, 1) %}{{ i }}{% endfor %}")
case("{% for x in 1, 2, 3 %}{{ x }}{% endfor %}")
case("{% for m in m[::-1] %}{{ m.role }}{{ loop.index0 }} {% endfor %}", **DATA)
case("{% set x = 1 %}{% for i in range(3) %}{{ x }}{% set x = x + 10 %}{{ x }} {% endfor %}{{ x }}")
case("{% for x in [1] %}{% set y = x %}{% endfor %}{{ y is defined }}")
case("{% for loop_item in [1] %}{{ loop.first }}{% endfor %}{{ loop is defined }}")
case("{% for x in [1, 2] %}{% else %}never{% endfor %}ok")
case("{% for x in 'ab' %}{% for x in '12' %}{{ x }}{% endfor %}{{ x }}{% endfor %}")
case("{% set outer = loop %}{% for a in [1, 2] %}{% set outer = loop %}{% for b in [1] %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}")
# if
case("{% if n > 3 %}a{% elif n > 1 %}b{% else %}c{% endif %}", n=5)
case("{% if n > 3 %}a{% elif n > 1 %}b{% else %}c{% endif %}", n=2)
case("{% if n > 3 %}a{% elif n > 1 %}b{% else %}c{% endif %}", n=0)
case("{% if undefined_name %}a{% endif %}b{% if not undefined_name %}c{% endif %}")
case("{% if [] or {} or '' or 0 or none or 0.0 %}a{% else %}b{% endif %}")
case("{% if no %}{% set x = 1 %}{% endif %}{{ x is defined }}", no=False)
case("{% if yes %}{% set x = 1 %}{% endif %}{{ x }}", yes=True)
case("{% if a %}{% if b %}ab{% else %}a{% endif %}{% endif %}", a=True, b=False)
# set, namespace, with, capture
case("{% set a, b = 1, 'x' %}{{ a }}{{ b }}")
case("{% set a = 1, 2 %}{{ a }}")
case("{% set x %}  body {{ 1 + 1 }}\n{% endset %}[{{ x }}]")
case("{% set x | upper | trim %} abc {% endset %}[{{ x }}]")
case("{% set x %}{% set y = 3 %}{{ y }}{% endset %}{{ x }}{{ y is defined }}")
case("{% set ns = namespace(found=false, n=0) %}{% for x in [1, 2, 3] %}{% if x == 2 %}{% set ns.found = true %}{% endif %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.found }}{{ ns.n }}{{ ns.zz is defined }}")
case("{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{% set ns.c = [ns.a] %}{{ ns.c }}")
case("{% set ns = namespace() %}{% set ns.x = 'a' %}{% set ns.x = ns.x ~ 'b' %}{{ ns.x }}{{ ns['x'] is defined }}")
case("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}")
case("{% set a = 5 %}{% with a = 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}")
case("{% filter upper %}abc {{ 'd' }}{% endfilter %}")
case("a{% generation %}b{{ 1 }}{% endgeneration %}c")
case("{% set messages = messages[1:] %}{{ messages | length }}", messages=[1, 2, 3])
case("{{ dict(a=1, b='x') }}{{ dict({'q': 2}, r=3) }}")
# macros
case("{% macro f(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(b=4, a=5) }} {{ f() }}")
case("{% macro f(a) %}{% if a > 0 %}{{ a }}{{ f(a - 1) }}{% endif %}{% endmacro %}{{ f(3) }}")
case("{% macro f() -%}\n  x  \n{%- endmacro %}[{{ f() }}]")
case("{% set g = 'global' %}{% macro f(x) %}{{ g }}{{ x }}{% endmacro %}{{ f('!') }}{% set g = 'late' %}{{ f('!') }}")
case("{% macro f(a, b=a ~ '!') %}{{ b }}{% endmacro %}{{ f('x') }}")
case("{% macro f() %}{% set y = 1 %}{% endmacro %}{{ f() }}{{ y is defined }}")
case("{% macro f(x) %}{{ x }}{% endmacro %}{{ f('a') ~ f('b') | upper }}{{ f(none) | length }}")
case("{% macro outer() %}{{ inner(2) }}{% endmacro %}{% macro inner(n) %}i{{ n }}{% endmacro %}{{ outer() }}")
case("{% macro f(items) %}{% for i in items %}{{ i }}{{ ',' if not loop.last }}{% endfor %}{% endmacro %}{{ f([1, 2]) }}{{ f is defined }}")
case("{% macro f(x) %}{% for i in range(x) %}{{ f(i) }}{{ i }}{% endfor %}{% endmacro %}{{ f(3) }}")
# white space
case("a\n{% if true %}\nb\n{% endif %}\nc\n")
case("a  \n  {% if true %}  \n  b\n  {% endif %}  \nc")
case("  {%- if true -%}  x  {%- endif -%}  y")
case("a {{- ' b ' -}} c")
case("a\n\n  {#- note -#}  \n\nb")
case("a\n  {# note #}\nb {# x #} c")
case("  {%+ if true %}x{% endif +%}\ny")
case("  {% if true +%}\nx{% endif %}\n")
case("{{ 'a' }}\n{{ 'b' }}\n")
case("\n\n{% set x = 1 %}\n\n{{ x }}\n\n")
case("x {% if true %} y {% endif %} z")
case("\t{% for i in [1, 2] %}\n\t{{ i }}\n\t{% endfor %}\n")
case("{% raw %}{{ not }} {% rendered %} {# here #}{% endraw %}!")
case("a\n  {%- raw -%}  {{ x }}  {%- endraw -%}  b")
case("  {% raw %}\n x{% endraw %}\n y")
case("line\r\nfeeds\r{{ 'x' }}\r\n")
case("{ { } } {x} {{ '{{' }} {{ '}}' }} {{ {'a': {'b': 1}}['a']['b'] }}")
case("{{ 'a' }}{% if true %}{{ 'b' }}{% endif %}{# c #}{{ 'd' }}")
case("{%- for i in [1] %}\n    {{- 'x' }}\n{%- endfor %}\n\nend")
case("{% if true %}a{% endif %}\n{% if true %}b{% endif %}\n\nc")
case("{{ '%}' }}{{ \"{%\" }}{% set x = '%}' %}{{ x }}")
case("\n")
case("")
case("a\n\n")
# strftime, raise in a branch not taken, callables
case("{{ strftime_now('') }}|{% if false %}{{ raise_exception('no') }}{% endif %}")
case("{{ strftime_now is defined }}{{ raise_exception is callable }}{{ strftime_now('%%') }}")
# context shapes
values(["messages[0]['content']", "messages | map(attribute='content') | join('+')", "messages[0].content[0].text", "messages[1:] | length", "(messages | last).role", "messages | selectattr('role', 'in', ['user', 'tool']) | list | length", "messages[0].role in ['user', 'system']", "messages[0] is mapping and messages[0].content is not string"],
       messages=[{"role": "user", "content": [{"type": "text", "text": "T"}]}, {"role": "assistant", "content": "A"}])
values(["x", "x | tojson", "[x]", "x == x", "x + 1"], x=18446744073709551615)
values(["x", "x | tojson", "[x]", "x | string | length"], x=1.7976931348623157e308)
values(["x", "x | tojson", "x | int"], x=123456789.125)
values(["x | tojson", "x", "x.k"], x={"k": "v", "ä": {"z": [], "y": {}}, "": 0})

# refusals
for template in ["{{ undefined_name.x }}", "{{ undefined_name['x'] }}", "{{ undefined_name() }}", "{{ undefined_name + 1 }}", "{{ 1 + undefined_name }}", "{{ undefined_name < 1 }}", "{{ -undefined_name }}", "{{ 'a' + 1 }}", "{{ 1 + 'a' }}", "{{ [] + () }}", "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ 1 < 'a' }}", "{{ none < 1 }}", "{{ 1 in 5 }}", "{{ 1 in 'abc' }}", "{{ 'a'.nothing() }}", "{{ none.x.y }}", "{{ {}.zz.y }}", "{{ [1][5].x }}",
                 "{{ raise_exception('my message') }}", "{{ range(1000000000) }}", "{{ range(1, 2, 0) }}", "{{ 'x' | nofilter }}", "{{ 'x' is notest }}", "{% nothing %}", "{% if true %}", "{% for x in [1] %}", "{% endif %}", "{% if %}{% endif %}", "{{ }}", "{{ 1 + }}", "{{ (1 }}", "{{ 1) }}", "{{ [1, 2 }}", "{{ 'abc }}", "{{ 1 2 }}", "{{ a b }}", "{% for x of y %}{% endfor %}", "{% set 1 = 2 %}", "{% set true = 2 %}", "{% set x.y = 2 %}", "{{ x", "{% if x", "{# x", "{% raw %}x", "{{ 1 is odd is even }}",
                 "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [(1, 2, 3)] %}{% endfor %}", "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}", "{{ 5 | length }}", "{{ none | length }}", "{{ undefined_name | int }}", "{{ undefined_name | tojson }}", "{{ range | tojson }}", "{{ [].append(1) }}", "{{ 1 ~ 2 + 3 }}", "{{ 1 is number if true else 3 }}", "{{ [{}] | map(attribute='x.y') | list }}", "{% for k, v in 'x' | items %}{% endfor %}", "{{ {}.update({}) }}", "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{% endmacro %}{{ f(b=1) }}", "{% macro f(a) %}{% endmacro %}{{ f(1, a=2) }}", "{{ 'a'.split('') }}", "{{ ', '.join([1]) }}", "{{ 'abc'.index('z') }}", "{{ [1, 'a'] | sort }}", "{{ {[]: 1} }}",
                 "{{ [1, 2]['a'].x }}", "{{ 5() }}", "{{ 'a'() }}", "{{ none[0].x }}", "{{ '%d' % 'x' }}", "{{ '%s %s' % 'x' }}", "{{ $ }}", "{{ 'a' | upper(1) }}", "{{ 'a' | trim(1, 2) }}", "{{ 1 | replace }}", "{% break %}", "{% extends 'x' %}", "{% include 'x' %}", "{% import 'x' as y %}", "{{ 1 | map('nofilter') | list }}", "{{ [1] | map('nofilter') | list }}", "{{ [1] | select('notest') | list }}", "{{ 'a' * 'b' }}", "{{ l[::0] }}", "{{ not }}", "{{ x. }}", "{{ x[] }}", "{{ 3 | first }}", "{{ ('a' ~ 'b').c.d }}", "{{ namespace(1) }}", "{{ 'x' if }}", "{% set x %}"]:
    error(template, l=[1])
