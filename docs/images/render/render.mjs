// node render.mjs RESULTS OUT: draws every board of the file RESULTS (see record.py) into OUT/dashboard-<name>.png.
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';

const [results, out] = process.argv.slice(2);
const recorded = JSON.parse(readFileSync(results, 'utf-8'));
mkdirSync('build', { recursive: true });
await build({
  entryPoints: ['panels.jsx'], bundle: true, outfile: 'build/panels.js', format: 'iife', logLevel: 'error',
  // the ESM build takes defaults of CommonJS packages as Node does, which gives objects instead of components
  alias: { '@grafana/ui': resolve('node_modules/@grafana/ui/dist/cjs/index.cjs') },
  define: { global: 'window', 'process.env.NODE_ENV': '"production"' },
  loader: { '.svg': 'dataurl', '.png': 'dataurl', '.ttf': 'dataurl', '.woff': 'dataurl', '.woff2': 'dataurl' },
});
for (const [uid, drawn] of Object.entries(recorded)) {
  const height = Math.max(...drawn.board.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]).map((panel) => (panel.gridPos.y + panel.gridPos.h) * 36)) + 24;
  const page = resolve('build', `${uid}.html`);
  const data = JSON.stringify(drawn).replaceAll('<', '\\u003c');
  writeFileSync(page, `<!doctype html><meta charset="utf-8">
<link rel="stylesheet" href="panels.css"><style>*{box-sizing:border-box} body{margin:0;background:#f4f5f5;font:14px Inter,Helvetica,Arial,sans-serif}</style>
<div id="board"></div><script>window.grafanaBootData={settings:{},user:{}};window.DRAWN=${data}</script>
<script src="panels.js"></script>`);
  execFileSync(process.env.CHROMIUM ?? 'chromium', [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--allow-file-access-from-files',
    '--virtual-time-budget=15000', `--window-size=1840,${height}`,
    `--screenshot=${resolve(out, `dashboard-${uid.replace('palegreen-', '')}.png`)}`, `file://${page}`,
  ], { stdio: ['ignore', 'ignore', process.env.DEBUG ? 'inherit' : 'ignore'] });
}
