/** Writes docs/kubectl.md, the page of the kubectl plugin: `node scripts/kubectl-page.ts`. A test compares it. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { format } from 'prettier';
import { objectCodes } from '../src/nmi/diagnosis/object-codes.ts';
import { oldestNode } from './plugin-script.ts';
import { runPlugin } from '../src/kubectl/plugin.ts';

const path = join(import.meta.dirname, '../docs/kubectl.md');

/** The whole page. */
export async function renderPage(): Promise<string> {
  const help = await helpOf([]);
  const verbs = [...help.matchAll(/^ {2}kubectl nmi ([a-z]+)/gm)].map(([, name = '']) => name);
  const parts: string[] = [];
  for (const verb of verbs.filter((name) => name !== 'completion')) {
    parts.push(`### ${verb}`, '```text', await verbHelp(verb), '```');
  }
  const page = [
    '<!-- Made by scripts/kubectl-page.ts (`npm run docs`). -->',
    '# kubectl nmi',
    introduction,
    '## Verbs',
    'All verbs have these flags:',
    '```text',
    commonFlags(help),
    '```',
    ...parts,
    '## Findings',
    'What the plugin finds beyond what the agent answers. `kubectl nmi reasons CODE` prints a part of this page.',
    ...Object.entries(objectCodes).map(renderEntry),
    'Reasons of the agent’s refusals are in [reasons.md](reasons.md).',
  ].join('\n\n');
  return format(page, { parser: 'markdown', printWidth: 100 });
}

const introduction = `The plugin of kubectl for everybody who deals with identities of pods. It runs the user’s own \`kubectl\`, so
contexts, login plugins and proxies work as they do there, and it needs no right but those of its user:
\`explain\` needs get and list of pods and of the three kinds of \`aadpodidentity.k8s.io\`. What else the user may
read is used too; what the user may not read is counted in one line, "Not checked", and listed with the RBAC rules by \`-v\`.
In a pod without a kubeconfig, kubectl takes the account of the pod only if no flag of the connection is given: the plugin gives none there
either, and \`doctor\` cannot ask for the rights of the agent.

\`./dev build\` makes the plugin twice: \`dist/kubectl-nmi-linux-amd64\` (or \`-arm64\`), one executable for Linux that needs nothing else, and
\`dist/kubectl-nmi\`, one script for machines with Node.js ${oldestNode} or later, macOS too. [A release](install.md#install-a-release) has archives
of both, and a manifest for krew. kubectl finds either by the name \`kubectl-nmi\` on the PATH (\`dist/kubectl_complete-nmi\` beside it completes names):

\`\`\`sh
install -m 755 dist/kubectl-nmi-linux-amd64 /usr/local/bin/kubectl-nmi
\`\`\`

| trouble | command that answers it |
| --- | --- |
| a pod gets 400, 403 or an identity that it should not have | \`kubectl nmi explain pod NAME\` |
| the first request of a new pod fails | \`kubectl nmi explain pod NAME\`: 503 with a reason in \`_pending\` passes |
| requests time out | \`kubectl nmi explain pod NAME\`: finding \`network_policy\` |
| pods of a new node get nothing, or the identities of the node | \`kubectl nmi doctor\`: finding \`agent_missing\` |
| new pods get 503 while old ones work | \`kubectl nmi doctor\`: finding \`agent_not_ready\`; \`kubectl describe pod\` of the agent has the unmet conditions |
| pods of a new node pool get \`identity_not_assigned\` | \`kubectl nmi identity assign NAME\`: the \`az\` line for every pool |
| tokens are old, or requests fail now and then | \`kubectl nmi explain pod NAME --live\`, \`kubectl nmi logs pod NAME\` |
| two pods have one address | \`kubectl nmi explain ip ADDRESS\` |
| something of the old system is left | \`kubectl nmi doctor\`: findings \`old_nmi\`, \`old_mic\`, \`crd_old\` |

\`explain\` takes kinds and names as kubectl does: \`pod web\`, \`pods web\`, \`pod/web\`, \`deploy/web\`. Its verdict on a pod is one of:

| verdict | meaning | exit code |
| --- | --- | --- |
| GRANTED | nothing that you may read speaks against it; what was not checked is named below, with the command that checks it if there is one | 0 |
| REFUSED | a request gets an error, or no answer for a network policy | 1 |
| NOT READY | nothing answers the pod now: it is pending or has ended, its node has no agent or a system without agents, or an object may be on its way | 1 |
| UNKNOWN | it depends on an option of the agent, or on the grant of an exception, that you may not read; or the old NMI is the only one on the node | 1 |

The verdict uses [status conditions](operate.md#status-conditions) too: a missing Secret or a missing identity grant is seen by a user who may read neither.

Whether Azure and Entra ID accept an identity is in no object. \`explain\` and \`analyze\` read it from the agents' [Events](operate.md#events) on the pod
and its identity, if you may list Events (core/v1) in the namespace: a refusal of the last hour without a later acceptance makes the verdict REFUSED,
"for new tokens" while cached ones are valid. Without that right the verdict stays, with "not checked: refusals of the last hour" and the command that reads them.
A user who may write Events in a namespace can write such ones there: an Event can hide another one, but never turns what objects refuse into GRANTED.

\`doctor\` prints a line for each check, with \`ok\`, \`warning\`, \`error\` or \`not checked\`, and under it what was found, the fix and the page. A cause that
many objects share is told once; \`-o json\` has a finding for each. \`--wait\` repeats the checks until no error is left, and standard error says which
checks it waits for.

Exit codes: 0 fine, 1 not granted (\`explain\`), errors (\`analyze\`, \`doctor\`) or failed, 2 usage, 69 out of reach,
74 output lost (a full disk, a closed pipe), 77 no right. With \`--fail-on=warning\` warnings exit with 1 too, as a missing grant does for \`grants\`; with
\`--fail-on=never\` nothing that is found does.
A flag with one value is given once, and not empty: everything else is a usage error. Findings have colors on a terminal, unless
\`NO_COLOR\` is set.

## A step of CI

\`analyze -f\` before \`kubectl apply\` fails the step on errors in manifests. A folder counts with all \`.yaml\`, \`.yml\` and \`.json\` files below it:

\`\`\`sh
kubectl nmi analyze -f deploy -n shop
helm template . | kubectl nmi analyze -f - -n shop
\`\`\`

It reads the namespaces of the manifests, and puts each object of a file in the place of that of the cluster with the same kind, namespace and name:
the AzureIdentityBinding of a Deployment may be in either. It reports what is wrong with objects of the files, and with other objects only
what was not wrong before, such as running pods that a new NetworkPolicy keeps from the agent. The user needs list of pods and of the three kinds of
\`aadpodidentity.k8s.io\` in the namespace, in all of them if the files have several; what else is not read is named, with the RBAC rules by \`-v\`.
\`--files-only\` reads no cluster: every object that a manifest names has to be in the files.

## Verbs that write

They print what they would change, and change objects in the cluster with \`--apply\` after printing it. In Azure the plugin changes
nothing, and reads nothing: it prints the \`az\` lines.

- One context and one namespace count from the first read to the last write, and every printed command names that context.
- The API server judges an object before it is shown (\`kubectl create --dry-run=server\`): what it would refuse is an error.
- An object is created, never overwritten: if one of that name exists with another spec, nothing changes.
- Of a service account, only annotations that it lacks are written.
- \`identity delete\` and \`exception delete\` delete with \`--apply\` only, and keep what others use: an AzureIdentity that another binding names, and
  the assignment in Azure while an AzureIdentity of any namespace may need it. Else only the pod that \`test\` has made is deleted.
- No value of an object is in an \`az\` line that \`az\` would read as a file, a flag or the machine's own identity. Federated credentials
  have names that no other cluster gives, since \`az\` replaces one of the same name.

## Which pods are agents

Every user of a namespace can give a pod the agents’ label \`component=nmi\`, so the plugin trusts no label. A pod is an agent if
it is in the namespace of the agents (\`--agent-namespace\`, default \`kube-system\`) and its controller is a DaemonSet there whose
pod template has that label; the manifests of this project and the managed mode of aad-pod-identity have such a DaemonSet. All other pods with the label
are ignored, and one line on standard error says how many, and in which namespaces. A pod that opens its node
(\`uninstall.openNodes\`, \`open-nodes.yaml\`) is no agent either: its node counts as one without an agent, which standard error says too.

To verify agents takes the right to list \`daemonsets.apps\` in that namespace. Without it, the pods of the namespace that have the
label are read (\`explain\`, \`doctor\`), which standard error says. Nothing else is done with them: \`doctor\` asks for no rights of theirs, \`test\` needs
\`--image\`, \`identity federate\` trusts neither their service account nor their audience, and \`sysdump\` enters none of them.`;

function renderEntry([code, row]: [
  string,
  (typeof objectCodes)[keyof typeof objectCodes],
]): string {
  const { means, fix, severity } = row;
  return `### ${code}\n\n${means} (${severity})\n\nFix: ${fix}`;
}

/** The help of a verb and of its sub-verbs. */
async function verbHelp(verb: string): Promise<string> {
  const help = await helpOf([verb]);
  // Only this section, since examples look the same.
  const [, commands = ''] = /^Commands:\n((?: .*\n)+)/m.exec(help) ?? [];
  const more = [...commands.matchAll(new RegExp(`^ {2}kubectl nmi ${verb} ([a-z-]+)`, 'gm'))];
  const parts = [help];
  for (const [, name = ''] of more) {
    if (help.includes(`kubectl nmi ${verb} <`)) break;
    parts.push(await helpOf([verb, name]));
  }
  return parts.map(withoutCommon).join('\n\n');
}

/** The flags that all verbs have. */
function commonFlags(help: string): string {
  const [, flags = ''] = /^(Connection:\n(?:.*\n)*?)\nExit codes:/m.exec(help) ?? [];
  return flags.trim();
}

/** Removes the flags that all verbs have. */
function withoutCommon(help: string): string {
  const common =
    /^ +(?:-n, )?--(?:namespace|agent-namespace|help|context|cluster|user|kubeconfig|as|request-timeout) /;
  return help
    .split('\n')
    .filter((line) => !common.test(line) && !/^(?:Exit codes:|Connection:)/.test(line))
    .join('\n')
    .replaceAll(/\nOptions:\n(?=\n|$)/g, '\n')
    .replaceAll(/\n{3,}/g, '\n\n')
    .trim();
}

async function helpOf(words: readonly string[]): Promise<string> {
  let stdout = '';
  await runPlugin([...words, '--help'], {
    environment: {},
    stdout: (text) => (stdout += text),
    stderr: () => undefined,
    run: () => Promise.resolve({ code: undefined, stdout: '', stderr: '' }),
    readText: () => Promise.resolve(undefined),
    listFolder: () => Promise.resolve(undefined),
    wallMs: () => 0,
    sleep: () => Promise.resolve(),
    stop: new AbortController().signal,
  });
  return stdout.trim();
}

/** The committed page. */
export function readPage(): Promise<string> {
  return readFile(path, 'utf8');
}

if (import.meta.main) await writeFile(path, await renderPage());
