"""The style sheet of a report: light and dark, narrow screens, print."""

STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #ffffff; --ink: #1f2328;
  --soft: #59616b; --line: #dddfe2; --grid: #ebecee; --link: #1a5fa8; --accent: #b2182b; }
@media screen and (prefers-color-scheme: dark) { :root { --page: #15171a; --card: #1d2024;
  --ink: #e4e6e9; --soft: #a3a9b2; --line: #3a3f46; --grid: #2b2f35; --link: #8ab8ee;
  --accent: #ef8a62; } }
:root[data-printing] { color-scheme: light; --page: #fff; --card: #fff; --ink: #000; --soft: #444;
  --line: #bbb; --grid: #ddd; --accent: #b2182b; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 48px 24px 80px; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 12px;
  overflow-wrap: anywhere; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 56px 0 8px; padding-top: 20px;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: 1.1rem; margin: 32px 0 4px; overflow-wrap: anywhere; }
p { max-width: 72ch; margin: 10px 0; overflow-wrap: anywhere; }
.intro p { font-size: 1.05rem; color: var(--soft); }
a { color: var(--link); }
.found { margin: 28px 0; border-left: 4px solid var(--accent); padding: 2px 0 2px 20px; }
.found ul { margin: 0; padding: 0; list-style: none; }
.found li { font-size: 1.15rem; line-height: 1.5; max-width: 68ch; margin: 10px 0;
  overflow-wrap: anywhere; }
nav ol { list-style: none; margin: 0; padding: 0; columns: 2 300px; }
nav .level-3 { padding-left: 1.2em; font-size: 0.94em; }
nav, .made { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 20px; margin: 24px 0; }
nav h2, .made h2 { font-size: 1rem; margin: 0 0 6px; padding: 0; border: 0; }
figure { margin: 20px 0 28px; }
figcaption { color: var(--soft); font-size: 0.94rem; max-width: 76ch; margin-top: 8px;
  overflow-wrap: anywhere; }
.picture { background: var(--card); color: var(--ink); border: 1px solid var(--line);
  border-radius: 10px; padding: 6px; overflow-x: auto; }
.picture > span:first-child { background: transparent !important; color: inherit !important; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 4px 14px 10px; }
details > summary { cursor: pointer; color: var(--link); padding: 8px 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 7px 12px 7px 0; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; min-width: 5.5em; }
th button { all: unset; cursor: pointer; font-weight: 600; line-height: 1.3; }
th button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
th[aria-sort="ascending"] button::after { content: " ▲"; font-size: 0.75em; }
th[aria-sort="descending"] button::after { content: " ▼"; font-size: 0.75em; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
.answers h4 { font-size: 1rem; margin: 22px 0 8px; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(280px, 100%), 1fr));
  gap: 10px; }
.cards article { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 14px 4px; }
.cards h5 { margin: 0 0 4px; font-size: 0.86rem; overflow-wrap: anywhere; }
.cards p { margin: 0 0 8px; font-size: 0.92rem; line-height: 1.5; white-space: pre-wrap; }
.cards p + p { border-top: 1px solid var(--line); padding-top: 8px; }
.swatch { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 2px;
  margin-right: 0.45em; }
dl { display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 4px 18px;
  margin: 0; font-size: 0.92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media (max-width: 600px) { main { padding: 24px 12px 48px; } dl { grid-template-columns: 1fr; } }
@media print { main { max-width: none; padding: 0; } figure, tr, article, .made {
  break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
  .picture, .scroll { overflow: visible; } .modebar { display: none; }
  * { print-color-adjust: exact; } }
@media (max-width: 800px) { .modebar { display: none; } }
"""
