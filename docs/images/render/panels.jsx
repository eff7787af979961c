// Panels of one board, each drawn by the component of @grafana/ui that Grafana draws it with.
import {
  applyFieldOverrides, createTheme, dateTime, FieldType, getFieldDisplayValues, Registry,
  standardTransformers, standardTransformersRegistry, toDataFrame, transformDataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, Table, ThemeContext, TimeSeries } from '@grafana/ui';
import React from 'react';
import { createRoot } from 'react-dom/client';
import 'uplot/dist/uPlot.min.css';
import { lastValueFrom } from 'rxjs';

const theme = createTheme({ colors: { mode: 'light' } });
const { board, results, from, to } = window.DRAWN;
const range = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
const DRAWN_HERE = new Set(['timeseries', 'stat', 'bargauge', 'table']);
const COLUMN = 76, UNIT = 36, GAP = 8, HEAD = 30;

standardTransformersRegistry.setInit(() =>
  ['merge', 'organize', 'filterFieldsByName', 'groupingToMatrix'].map((id) => {
    const transformation = Object.values(standardTransformers).find((each) => each.id === id);
    return { id, name: id, transformation, editor: () => null };
  }));

const property = (id) => {
  const custom = id.startsWith('custom.');
  return {
    id, name: id, path: custom ? id.slice(7) : id, isCustom: custom, settings: {},
    process: (value) => value, shouldApply: () => true, getItemsCount: () => 0, override: () => null, editor: () => null,
  };
};
const IDS = ['unit', 'decimals', 'min', 'max', 'mappings', 'thresholds', 'color', 'noValue', 'displayName'];
const CUSTOM = [
  'drawStyle', 'lineWidth', 'fillOpacity', 'showPoints', 'spanNulls', 'stacking', 'thresholdsStyle', 'scaleDistribution',
  'cellOptions', 'width', 'align', 'filterable',
];
const registry = new Registry(() => [...IDS, ...CUSTOM.map((id) => `custom.${id}`)].map(property));

const named = (legend, labels) => {
  if (legend === '__auto') {
    return Object.values(labels).join(' ') || 'Value';
  }
  return legend.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => labels[label] ?? '').trim();
};
const number = (text) => (text === 'NaN' ? null : Number(text));

function frames(panel) {
  return panel.targets.flatMap((target) => {
    const series = results[panel.id][target.refId];
    if (target.format === 'table') {
      const labels = [...new Set(series.flatMap((each) => Object.keys(each.metric)))].sort();
      const value = panel.targets.length > 1 ? `Value #${target.refId}` : 'Value';
      return [toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: series.map(() => to) },
          ...labels.map((name) => (
            { name, type: FieldType.string, values: series.map((each) => each.metric[name] ?? '') }
          )),
          { name: value, type: FieldType.number, values: series.map((each) => number(each.value[1])) },
        ],
      })];
    }
    return series.map((each) => {
      const points = each.values ?? [each.value];
      const name = named(target.legendFormat, each.metric);
      return toDataFrame({
        refId: target.refId, name,
        fields: [
          { name: 'Time', type: FieldType.time, values: points.map(([at]) => at * 1000) },
          {
            name: 'Value', type: FieldType.number, values: points.map(([, value]) => number(value)),
            labels: each.metric, config: { displayNameFromDS: name },
          },
        ],
      });
    });
  });
}

function prepared(panel, data) {
  const overrides = panel.fieldConfig.overrides.map((rule) => (
    { ...rule, properties: rule.properties.filter((each) => each.id !== 'links') }
  ));
  return applyFieldOverrides({
    data, theme, fieldConfig: { defaults: panel.fieldConfig.defaults, overrides }, fieldConfigRegistry: registry,
    replaceVariables: (text) => text, timeZone: 'utc',
  });
}

function Values({ panel, data, width, height }) {
  const found = getFieldDisplayValues({
    data, theme, reduceOptions: panel.options.reduceOptions, replaceVariables: (text) => text, timeZone: 'utc',
    fieldConfig: panel.fieldConfig, sparkline: false,
  });
  const across = panel.type === 'stat' && panel.options.orientation !== 'horizontal' && width > height;
  const each = (across ? width : height) / found.length;
  return (
    <div style={{ display: 'flex', flexDirection: across ? 'row' : 'column' }}>
      {found.map(({ display, field }, at) => (panel.type === 'stat' ? (
        <BigValue
          key={at} value={display} theme={theme} colorMode={panel.options.colorMode} graphMode="none"
          textMode={panel.options.textMode} justifyMode="auto"
          width={(across ? each : width) - 4} height={(across ? height : each) - 4}
        />
      ) : (
        <BarGauge
          key={at} value={display} field={field} display={field.display} theme={theme} orientation="horizontal"
          displayMode={panel.options.displayMode} itemSpacing={8} lcdCellWidth={12} showUnfilled
          alignmentFactors={longest(found)} width={width} height={Math.min(each, 34)}
        />
      )))}
    </div>
  );
}

const longest = (found) => found.reduce(
  (most, { display }) => ({
    title: display.title.length > most.title.length ? display.title : most.title,
    text: display.text.length > most.text.length ? display.text : most.text,
    suffix: display.suffix ?? '',
  }),
  { title: '', text: '', suffix: '' },
);

function Inside({ panel, data, width, height }) {
  if (!data.length && panel.targets && results[panel.id] && DRAWN_HERE.has(panel.type)) {
    return 'No data';
  }
  if (panel.type === 'timeseries') {
    return (
      <TimeSeries frames={data} timeRange={range} timeZone="utc" width={width} height={height} legend={panel.options.legend} />
    );
  }
  if (panel.type === 'stat' || panel.type === 'bargauge') {
    return <Values panel={panel} data={data} width={width} height={height} />;
  }
  if (panel.type === 'table') {
    return (
      <Table data={data[0]} width={width} height={height} enableSharedCrosshair={false} showTypeIcons={false}
        initialSortBy={panel.options.sortBy ?? []} />
    );
  }
  return <em style={{ color: '#777' }}>{panel.type}: Grafana itself draws it</em>;
}

class Guarded extends React.Component {
  state = {};

  static getDerivedStateFromError(failure) {
    return { failure };
  }

  render() {
    return this.state.failure ? <pre>{this.state.failure.stack}</pre> : this.props.children;
  }
}

function Board({ shown }) {
  return shown.map(({ panel, data }) => {
    const { x, y, w, h } = panel.gridPos;
    const place = {
      position: 'absolute', left: x * COLUMN + GAP, top: y * UNIT + GAP, width: w * COLUMN - GAP, height: h * UNIT - GAP,
    };
    if (panel.type === 'row') {
      return <h3 key={panel.id} style={{ ...place, margin: 0, fontSize: 16 }}>{panel.title}</h3>;
    }
    return (
      <section key={panel.id} style={{ ...place, border: '1px solid #ddd', borderRadius: 2, background: '#fff' }}>
        <div style={{ padding: '6px 8px', fontWeight: 500 }}>{panel.title}</div>
        <div style={{ padding: '0 8px' }}>
          <Guarded>
            <Inside panel={panel} data={data} width={place.width - 18} height={place.height - HEAD - 8} />
          </Guarded>
        </div>
      </section>
    );
  });
}

async function main() {
  const shown = await Promise.all(board.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]).map(async (panel) => {
    if (panel.type === 'row' || !results[panel.id]) {
      return { panel, data: [] };
    }
    const raw = frames(panel);
    const changed = panel.transformations ? await lastValueFrom(transformDataFrame(panel.transformations, raw)) : raw;
    return { panel, data: prepared(panel, changed) };
  }));
  createRoot(document.getElementById('board')).render(
    <ThemeContext.Provider value={theme}><Board shown={shown} /></ThemeContext.Provider>,
  );
}

main().catch((failure) => { document.body.textContent = failure.stack; });
