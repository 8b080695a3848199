/** `kubectl nmi test`: a short-lived pod that sends a pod's requests. It never prints a token. */
import { bindingLabel } from '../../cache/index/binding-label.ts';
import { stringAt } from '../../base/json-value.ts';
import { labelsOf, namespaceOf, specOf, statusOf, type RawObject } from '../base/object.ts';
import { renderYaml } from '../base/output.ts';
import { exitCodes } from '../base/io.ts';
import { failedError, usageError, type ExitCode } from '../base/plugin-error.ts';
import { trustedOf } from '../cluster/agents.ts';
import { readAgents } from '../cluster/trusted-agents.ts';
import { isWorkloadIdentity, namedClientId, workloadIdentityLabel } from '../findings/pods.ts';
import { valueOf } from '../transport/kubectl.ts';
import { classifyFailure, toPluginError } from '../transport/kubectl-failure.ts';
import {
  kubectlCommand,
  nmiCommand,
  pin,
  print,
  type PinnedContext,
  type VerbContext,
} from './context.ts';
import { durationOf } from './flag-values.ts';
import { reportFlags, type AddVerb } from './verb.ts';

export const addTest: AddVerb = (parser, start) =>
  parser.command(
    'test',
    'request a token as another pod: with its binding label, service account and client id',
    (verb) =>
      verb
        .option('pod', {
          type: 'string',
          demandOption: true,
          describe: 'As this pod, on its node.',
        })
        .option('image', {
          type: 'string',
          describe: 'Image of the agent; default: that of the verified agents.',
        })
        .option('resource', {
          type: 'string',
          default: 'https://management.azure.com/',
          describe: 'Resource to request.',
        })
        .option('timeout', {
          type: 'string',
          default: '2m',
          requiresArg: true,
          describe: 'How long to wait for the pod. As 90s, 2m or 1m30s.',
        })
        .options(reportFlags)
        .example('$0 test --pod web-7d4b9 -n shop', ''),
    (flags) =>
      start(flags, (context) =>
        test(context, { ...flags, timeoutMs: durationOf('--timeout', flags.timeout) }),
      ),
  );

interface TestFlags {
  readonly pod: string;
  readonly image: string | undefined;
  readonly resource: string;
  readonly timeoutMs: number;
}

const pauseMs = 1_000;
const decidingLabels: ReadonlySet<string> = new Set([bindingLabel, workloadIdentityLabel]);

async function test(unpinned: VerbContext, flags: TestFlags): Promise<ExitCode> {
  const context = await pin(unpinned);
  const { kubectl, io, namespace } = context;
  const title = `pod ${namespace}/${flags.pod}`;
  const model = valueOf(await kubectl.get('pods', namespace, flags.pod), `get ${title}`);
  if (!labelsOf(model).has(bindingLabel) && !isWorkloadIdentity(model)) {
    throw failedError(
      `${title} has neither the label ${bindingLabel} nor ${workloadIdentityLabel}=true, and a test pod has no other label of it`,
      `See what it gets: ${nmiCommand(context, 'explain', 'pod', flags.pod)}`,
    );
  }
  const image = flags.image ?? (await imageOf(context));
  const name = `nmi-test-${io.wallMs().toString(36)}`;
  const clientId = namedClientId(model);
  const pod = podOf(name, model, image, flags);
  io.stderr(`pod ${name} is created in ${context.target}, and deleted at the end\n`);
  const made = await kubectl.run(['create', '--filename=-'], {
    input: renderYaml([pod]),
    outlivesStop: true,
  });
  if (made.code !== 0) {
    const failure = classifyFailure(made);
    // Without an answer of the server, the pod may exist.
    const isOpen = failure.kind === 'other' && !failure.detail.startsWith('Error from server');
    if (isOpen || failure.kind === 'unreachable') await remove(context, name, 'may be left behind');
    throw toPluginError(failure, `create pod ${namespace}/${name}`);
  }
  try {
    const phase = await untilEnded(context, namespace, name, flags.timeoutMs);
    const log = await kubectl.run(['logs', `--namespace=${namespace}`, name]);
    // Without its log, nothing is known of the pod.
    if (io.stop.aborted) throw failedError('interrupted', 'Run it again.');
    // The client always sends a request without a client id too.
    const isOfPod = clientId === undefined ? /acquire|failed/ : /acquire.*clientID\(/;
    const lines = log.stdout.split('\n').filter((line) => isOfPod.test(line));
    const isGranted = lines.some((line) => line.includes('successfully acquired'));
    const value = { kind: 'Test', pod: name, phase, clientId, granted: isGranted, lines };
    print(context, value, () => [
      isGranted ? 'A token came.' : `No token came (pod ${phase || 'did not start'}).`,
      ...lines.map((line) => `  ${line}`),
      ...(isGranted ? [] : [`Then: ${nmiCommand(context, 'explain', 'pod', flags.pod)}`]),
      `The request named ${clientId === undefined ? 'no client id' : `client id ${clientId}`}.`,
      'NetworkPolicies and exceptions for other labels of the pod were not tested.',
    ]);
    return isGranted ? exitCodes.ok : exitCodes.findings;
  } finally {
    await remove(context, name, 'is left behind');
  }
}

async function remove(context: PinnedContext, name: string, otherwise: string) {
  const { kubectl, warn, namespace } = context;
  const words = ['delete', 'pods', `--namespace=${namespace}`, name];
  const run = await kubectl.run([...words, '--wait=false', '--ignore-not-found'], {
    outlivesStop: true,
    mayRepeat: true,
  });
  if (run.code === 0) return;
  warn(
    `pod ${namespace}/${name} ${otherwise}. Delete it: ${kubectlCommand(context)} ${words.join(' ')}`,
  );
}

/** The pod has the rights of another one, so its image must not be anybody's. */
async function imageOf(context: VerbContext): Promise<string> {
  const read = await readAgents(context);
  const [agent] = read.ok ? trustedOf(read.value) : [];
  if (agent !== undefined) return agent.image;
  throw usageError(
    `the image of the agent is not known: no verified agent is visible to you in namespace ${context.agentNamespace}`,
    'Give --image, or --agent-namespace if the agents are in another namespace.',
  );
}

/** Meets the restricted pod security standard; runs the agent's sample client. */
function podOf(
  name: string,
  model: RawObject,
  image: string,
  { resource, timeoutMs }: TestFlags,
): object {
  const clientId = namedClientId(model);
  // These decide what it gets. By any other, a Service could select it.
  const labels = [...labelsOf(model)].filter(([key]) => decidingLabels.has(key));
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace: namespaceOf(model),
      labels: {
        'app.kubernetes.io/name': 'nmi-test',
        ...Object.fromEntries(labels),
      },
    },
    spec: {
      restartPolicy: 'Never',
      // Also ends it where this program was killed.
      activeDeadlineSeconds: Math.max(1, Math.ceil(timeoutMs / 1000)),
      serviceAccountName: stringAt(specOf(model), 'serviceAccountName'),
      automountServiceAccountToken: false,
      nodeName: stringAt(specOf(model), 'nodeName') || undefined,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 65_532,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: 'demo',
          image,
          args: [
            ...['demo', '--once', `--resource-name=${resource}`],
            ...(clientId === undefined ? [] : [`--identity-client-id=${clientId}`]),
          ],
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
          resources: { requests: { cpu: '10m', memory: '64Mi' }, limits: { memory: '256Mi' } },
        },
      ],
    },
  };
}

async function untilEnded(
  { kubectl, io }: VerbContext,
  namespace: string,
  name: string,
  timeoutMs: number,
): Promise<string> {
  const endMs = io.wallMs() + timeoutMs;
  let phase = '';
  // No mutation: a millisecond more is as good.
  while (phase !== 'Succeeded' && phase !== 'Failed' && io.wallMs() < endMs) {
    await io.sleep(pauseMs);
    const read = await kubectl.get('pods', namespace, name);
    phase = stringAt(statusOf(valueOf(read, `get pod ${namespace}/${name}`)), 'phase');
  }
  return phase;
}
