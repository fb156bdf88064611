"""The style sheet of a report: light and dark, narrow screens, print."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f6f4; --card: #ffffff; --ink: #22252a;
  --soft: #5b616b; --line: #dcdddf; --link: #1a5fa8; }
@media (prefers-color-scheme: dark) { :root { --page: #17191c; --card: #202327; --ink: #e3e5e8;
  --soft: #a2a8b1; --line: #3a3e45; --link: #8ab8ee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 20px 80px; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 12px; }
h2 { font-size: 1.4rem; margin: 56px 0 8px; padding-top: 16px; border-top: 1px solid var(--line); }
h3 { font-size: 1.1rem; margin: 32px 0 4px; }
p { max-width: 72ch; margin: 10px 0; overflow-wrap: anywhere; }
.intro p { font-size: 1.1rem; color: var(--soft); }
a { color: var(--link); }
nav ol { list-style: none; margin: 0; padding: 0; columns: 2 300px; }
nav .level-3 { padding-left: 1.2em; font-size: 0.94em; }
nav, .made { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 20px; margin: 24px 0; }
nav h2, .made h2 { font-size: 1rem; margin: 0 0 6px; padding: 0; border: 0; }
figure { margin: 20px 0 28px; }
figcaption { color: var(--soft); font-size: 0.94rem; max-width: 76ch; margin-top: 8px;
  overflow-wrap: anywhere; }
.picture { background: #ffffff; color: #222222; border: 1px solid var(--line);
  border-radius: 10px; padding: 6px; overflow-x: auto; }
.plot { min-width: 620px; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 4px 14px 10px; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; }
th, td { text-align: left; vertical-align: top; padding: 7px 12px 7px 0; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); white-space: nowrap; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.generations td { white-space: pre-wrap; min-width: 200px; overflow-wrap: anywhere; }
.generations tbody th { white-space: pre-wrap; min-width: 130px; max-width: 220px; }
.swatch { display: inline-block; width: 0.7em; height: 0.7em; border-radius: 2px;
  margin-right: 0.45em; }
dl { display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 4px 18px;
  margin: 0; font-size: 0.92rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap;
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media (max-width: 600px) { main { padding: 24px 12px 48px; } dl { grid-template-columns: 1fr; } }
@media print { :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; }
  main { max-width: none; padding: 0; } figure, tr, .made { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .picture, .scroll { overflow: visible; } .plot { min-width: 0; }
  .modebar { display: none; } * { print-color-adjust: exact; } }
"""
