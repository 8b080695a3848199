/**
 * Writes the chart's files that follow from the options table: `deploy/chart/values.schema.json`
 * and `deploy/chart/templates/_flags.tpl`. `node scripts/chart-schema.ts`; a test compares them, so
 * no flag lacks a value and no value lacks a flag.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import type { OptionType } from '../src/nmi/config/option-types.ts';
import {
  environmentName,
  hasFlag,
  ignoredFlags,
  options,
  type Option,
} from '../src/nmi/config/options.ts';

/** Folder of the chart. */
export const chartFolder = join(import.meta.dirname, '../deploy/chart');

/** A part of a JSON schema. */
type Schema = Readonly<Record<string, unknown>>;

/** Values with names that do not follow from the flag's name, most of the replaced system's chart. */
const oldPaths: Readonly<Record<string, readonly string[]>> = {
  'custom-user-agent': ['customUserAgent'],
  'ipt-update-interval-sec': ['nmi', 'ipTableUpdateTimeIntervalInSeconds'],
  'http-probe-port': ['nmi', 'probePort'],
  'log-format': ['nmi', 'loggingFormat'],
  'max-watch-events-per-sec': ['conditions', 'maxWatchEventsPerSec'],
  v: ['nmi', 'logVerbosity'],
};

/** Flags without effect that had a value, all but one in the replaced system's chart. */
const ignoredPaths: Readonly<Record<string, readonly string[]>> = {
  'enable-conntrack-deletion': ['nmi', 'enableConntrackDeletion'],
  'set-retry-after-header': ['nmi', 'setRetryAfterHeader'],
  MICNamespace: ['nmi', 'micNamespace'],
  'pods-from': ['nmi', 'podsFrom'],
  enableScaleFeatures: ['nmi', 'enableScaleFeatures'],
  'retry-attempts-for-created': ['nmi', 'retryAttemptsForCreated'],
  'retry-attempts-for-assigned': ['nmi', 'retryAttemptsForAssigned'],
  'find-identity-retry-interval': ['nmi', 'findIdentityRetryIntervalInSeconds'],
};

/** Options that the templates set themselves or that are useless in a pod. */
const notValues = new Set([
  'agent-daemonset',
  'agent-namespace',
  'boot-guard-folder',
  'shared-folder',
  'force-namespaced',
  'kubeconfig',
  'node',
  'operation-mode',
  'pod-uid',
  'slot-folder',
]);
/** The pod of `nmi conditions` is not on the host network, and keeps the default ports. */
const notOfConditions = new Set(['http-probe-port', 'prometheus-port', 'prometheus-address']);

export interface ChartValue {
  /** From the root of values.yaml. */
  readonly path: readonly string[];
  /** Without dashes; undefined if a template sets an environment variable instead. */
  readonly flag: string | undefined;
  readonly schema: Schema;
  /** Undefined for a flag without effect. */
  readonly option: Option | undefined;
  readonly isOfConditions: boolean;
}

/** The values that become an option. */
export function chartValues(): readonly ChartValue[] {
  const values = options
    .filter(({ name }) => !notValues.has(name))
    .map((option) => ({
      path: oldPaths[option.name] ?? ['nmi', valueName(option.name)],
      flag: hasFlag(option) ? option.name : undefined,
      schema: schemaOf(option),
      option,
      isOfConditions: option.isOfConditions === true && !notOfConditions.has(option.name),
    }));
  const ignored = ignoredFlags.flatMap(({ name, reason }) => {
    const path = ignoredPaths[name];
    const description = `--${name}: no effect, ${reason}.`;
    const schema = { ...scalar, description };
    return path === undefined
      ? []
      : [{ path, flag: name, schema, option: undefined, isOfConditions: false }];
  });
  return [...values, ...ignored];
}

/** `nmi-port` is below `nmi` already. */
function valueName(flag: string): string {
  return flag
    .replace(/^nmi-/, '')
    .replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** The templates that turn the values into arguments; an empty value is not passed. */
export function renderFlags(): string {
  const all = chartValues();
  return [
    '{{/* Made by scripts/chart-schema.ts from the options table; not to be edited. */}}',
    ...flagsTemplate(
      'nmi.flags',
      all.filter(({ path }) => path[0] !== 'conditions'),
    ),
    ...flagsTemplate(
      'nmi.conditionsFlags',
      all.filter(({ isOfConditions }) => isOfConditions),
    ),
    '',
  ].join('\n');
}

function flagsTemplate(template: string, values: readonly ChartValue[]): readonly string[] {
  const lines = values.flatMap(({ flag, path, option }) => {
    if (flag === undefined) return [];
    const { range, kind = '', allowed = '' } = option?.type ?? {};
    const name = path.join('.');
    const limits =
      range === undefined
        ? ''
        : ` "name" "${name}" "kind" "${kind}" "min" ${range.min} "max" ${range.max} "allowed" "${allowed}"`;
    const argument = `dict "flag" "${flag.length === 1 ? '-' : '--'}${flag}"`;
    return [`{{- include "nmi.flag" (${argument} "value" .Values.${name}${limits}) }}`];
  });
  return [`{{- define "${template}" -}}`, ...lines, '{{- end -}}'];
}

/** Formatted as the repository's other files are. */
export async function renderSchema(): Promise<string> {
  const path = join(chartFolder, 'values.schema.json');
  const config = await resolveConfig(path);
  return format(JSON.stringify(valuesSchema()), { ...config, filepath: path });
}

function valuesSchema(): Schema {
  const own = { ...topLevel };
  const ofNmi: Record<string, Schema> = { ...nmiValues };
  const ofConditions: Record<string, Schema> = { enabled: flag, resources: map };
  for (const { path, schema } of chartValues()) {
    const [first = '', second] = path;
    if (second === undefined) own[first] = schema;
    else (first === 'conditions' ? ofConditions : ofNmi)[second] = schema;
  }
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Values of the chart entra-pod-identity',
    ...closed({ ...own, nmi: closed(ofNmi), conditions: closed(ofConditions) }),
  };
}

/** An unknown name is an error, not a value to ignore. */
function closed(properties: Readonly<Record<string, Schema>>): Schema {
  return { type: 'object', additionalProperties: false, properties };
}

const text: Schema = { type: ['string', 'null'] };
const list: Schema = { type: ['array', 'null'] };
const map: Schema = { type: ['object', 'null'] };
const mapOfText: Schema = { ...map, additionalProperties: { type: 'string' } };
/** Values for the replaced system were often texts. */
const flag: Schema = { enum: [true, false, 'true', 'false', '', null] };
const scalar: Schema = { type: ['string', 'number', 'boolean', 'null'] };
const namespaces: Schema = { ...list, items: { type: 'string', minLength: 1 } };
const monitor = closed({
  enabled: flag,
  labels: mapOfText,
  interval: text,
  scrapeTimeout: text,
});

function standardMode(what: Schema): Schema {
  return { ...what, description: 'Of standard mode; accepted and not used.' };
}

const azureIdentity: Schema = {
  ...closed({
    namespace: { ...text, description: "Default: the release's." },
    name: { ...text, description: 'Default: the key.' },
    type: {
      enum: [0, 1, 2, 3, 4, '0', '1', '2', '3', '4'],
      description: '0 user-assigned, 1 secret, 2 certificate, 3 federated, 4 chain.',
    },
    resourceID: text,
    clientID: text,
    tenantID: text,
    adEndpoint: text,
    federation: { enum: ['pod', 'binding', 'node', '', null] },
    clientPassword: closed({ name: text, namespace: text }),
    application: closed({ tenantID: text, clientID: text }),
    agentIdentity: text,
    auxiliaryTenantIDs: { ...list, items: { type: 'string' } },
    allowedResources: { ...list, items: { type: 'string' } },
    binding: {
      ...closed({
        name: text,
        selector: { type: 'string', minLength: 1 },
        serviceAccount: text,
      }),
      required: ['selector'],
    },
  }),
  required: ['type', 'binding'],
};

const topLevel: Readonly<Record<string, Schema>> = {
  global: map,
  nameOverride: { ...text, pattern: '^([a-z0-9]([-a-z0-9]{0,52}[a-z0-9])?)?$' },
  fullnameOverride: text,
  operationMode: { enum: ['managed'], description: 'There is no standard mode.' },
  forceNamespaced: { ...flag, description: 'Matching is always namespaced; accepted, not used.' },
  installMICException: { ...flag, description: 'Except the add-ons of AKS in kube-system.' },
  image: closed({
    repository: { ...text, pattern: '^[A-Za-z0-9.:_/[\\]-]*$' },
    digest: { ...text, pattern: '^(sha256:[0-9a-f]{64})?$' },
    imagePullPolicy: { enum: ['Always', 'IfNotPresent', 'Never'] },
  }),
  imagePullSecrets: { ...list, items: { type: 'object' } },
  rbac: closed({
    enabled: flag,
    allowAccessToSecrets: flag,
    secretsNamespaces: namespaces,
    allowFederation: flag,
    federationNamespaces: namespaces,
    createUserFacingClusterRoles: flag,
    pspEnabled: {
      enum: [false, 'false', '', null],
      description: 'Kubernetes has no PodSecurityPolicy any more.',
    },
  }),
  policies: closed({
    bindingLabel: flag,
    dropNetRaw: flag,
    identityOwners: flag,
    warnIdentities: flag,
  }),
  bootGuard: closed({ enabled: flag }),
  uninstall: closed({ openNodes: flag }),
  podMonitor: monitor,
  serviceMonitor: monitor,
  prometheusRule: closed({ enabled: flag, labels: mapOfText, runbookBase: text }),
  dashboard: closed({ enabled: flag, labels: mapOfText }),
  azureIdentities: { ...map, additionalProperties: azureIdentity },
  mic: standardMode(map),
  adminsecret: standardMode(map),
};

const port: Schema = {
  type: ['integer', 'string'],
  minimum: 0,
  maximum: 65_535,
  pattern: '^[0-9]+$',
};

const portOrEmpty: Schema = { ...port, pattern: '^[0-9]*$' };

const nmiValues: Readonly<Record<string, Schema>> = {
  privilegeSplit: flag,
  redirectSide: closed({ probePort: portOrEmpty, prometheusPort: portOrEmpty, resources: map }),
  image: { type: 'string', pattern: '^[a-z0-9]([a-z0-9._/-]*[a-z0-9])?$' },
  tag: { ...text, pattern: '^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$' },
  priorityClassName: text,
  resources: map,
  updateStrategy: map,
  podAnnotations: mapOfText,
  podLabels: mapOfText,
  affinity: map,
  nodeSelector: mapOfText,
  tolerations: { ...list, items: { type: 'object' } },
  env: { ...list, items: { type: 'object', required: ['name'] } },
  extraVolumes: { ...list, items: { type: 'object', required: ['name'] } },
  extraVolumeMounts: { ...list, items: { type: 'object', required: ['name', 'mountPath'] } },
};

function schemaOf(option: Option): Schema {
  const { name, help, type } = option;
  const place = hasFlag(option) ? `--${name}` : environmentName(option);
  return { ...typeOf(type), description: `${place}: ${help} Takes ${type.allowed}.` };
}

function typeOf({ kind, range, choices = [], removed, pattern }: OptionType<unknown>): Schema {
  switch (kind) {
    case 'boolean':
      return flag;
    case 'integer':
      return {
        type: ['integer', 'string', 'null'],
        minimum: range?.min,
        maximum: range?.max,
        pattern: '^[0-9]*$',
      };
    case 'choice':
      // The templates refuse what was removed, since they can say what to do instead.
      return { enum: [...choices, ...(removed === undefined ? [] : [removed.choice]), '', null] };
    case 'list': {
      const item = (pattern?.source ?? '').replaceAll(/^\^|\$$/g, '');
      return {
        type: ['array', 'string', 'null'],
        items: { type: 'string', ...patternOf(pattern) },
        pattern: `^\\s*(${item})?\\s*(,\\s*(${item})?\\s*)*$`,
      };
    }
    // The templates check the range, of whole numbers in texts too.
    case 'duration':
      return { type: ['string', 'integer', 'null'] };
    case 'ip':
    case 'string':
      return { ...text, ...patternOf(pattern) };
  }
}

/** A JSON schema pattern has no flags; the agent checks patterns with flags at its start. */
function patternOf(test: RegExp | undefined): Schema {
  return test === undefined || test.flags !== '' ? {} : { pattern: test.source };
}

if (import.meta.main) {
  await writeFile(join(chartFolder, 'values.schema.json'), await renderSchema());
  await writeFile(join(chartFolder, 'templates/_flags.tpl'), renderFlags());
}
