/** The kubectl plugin: what leaves a cluster, what reaches a terminal or a shell. */
import type { Faults } from '../mutation.ts';

export const kubectl: Faults = {
  'src/kubectl/base/redact.ts': [
    ['a token is in a dump', 'eyJ[\\w-]{5,}(?:\\.[\\w-]+){1,2}|', ''],
    ['a secret of an environment is in a dump', "key === 'value' && isSecret", 'false'],
    [
      'older versions of an object are in a dump',
      'metadata: { ...metadata, annotations } };',
      'metadata };',
    ],
    [
      'containers are dumped as they are',
      'if (Array.isArray(value)) return value.map(redactValue);',
      'if (Array.isArray(value)) return value;',
    ],
    [
      'texts of objects are dumped as they are',
      "if (typeof value === 'string') return redactText(value);",
      '',
    ],
  ],
  'src/kubectl/base/output.ts': [
    ['the text of an object moves a terminal', 'lines().map(toLine)', 'lines()'],
    [
      'the text of an object turns a line around',
      '|[\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069]',
      '',
    ],
    ['YAML moves a terminal', 'scalar.type = Scalar.QUOTE_DOUBLE;', 'void scalar;'],
    ['JSON moves a terminal', '/[^\\n\\x20-\\x7e]/g', '/[^\\n\\x20-\\xff]/g'],
    [
      'a name runs in the shell of the user',
      'if (/^[\\w@%+=:,./-]+$/.test(word)) return',
      'return',
    ],
    ['a quote ends a word', "word.replaceAll(\"'\", `'\\\\''`)", 'word'],
  ],
  'src/kubectl/transport/kubectl.ts': [
    ['a name is taken for a flag', "'--output=json', '--', name]", "'--output=json', name]"],
    [
      'flags of the connection are those of the command in a pod',
      '[...before, ...flags, ...after]',
      '[...before, ...after, ...flags]',
    ],
    ['a call is made as the user instead of the account', '!isOther || ', 'true || '],
    [
      'a server that does not answer is waited for',
      "{ 'request-timeout': defaultTimeout, ...flags }",
      'flags',
    ],
  ],
  'src/kubectl/findings/pods.ts': [
    ['the name of an identity runs in a shell', '${shellWord(missing)}', '${missing}'],
    ['a label of another namespace runs in a shell', '${shellWord(wanted)}', '${wanted}'],
  ],
  'src/kubectl/azure/federation.ts': [
    ['two service accounts share a credential', "namespace.includes('-') ? '_' : '-'", "'-'"],
    ['long names are cut to the same', 'maxNameLength - end.length)}${end}', 'maxNameLength)}'],
  ],
  'src/kubectl/findings/identity-users.ts': [
    [
      'pods of another namespace lose their identity',
      'others.filter((each) => isSame(own, idsOf(each)))',
      '[]',
    ],
    [
      'what cannot be compared counts as another identity',
      'others.filter((each) => !isComparable(own, idsOf(each)))',
      '[]',
    ],
  ],
  'src/kubectl/verbs/identity.ts': [
    [
      'an assignment that others may need is removed',
      'ignoreUnknownUsers || (!isBlind && unknown.length === 0)',
      'true',
    ],
  ],
  'src/kubectl/verbs/to-workload-identity.ts': [
    ['an annotation of another owner is replaced', 'isSame(present, value)', 'true'],
    ['an empty client id is written', '!isGuid(clientId)', 'false'],
  ],
  'src/kubectl/verbs/plan.ts': [
    ['an object writes YAML for kubectl apply', '# ${toLine(line)}', '# ${line}'],
  ],
  'src/kubectl/verbs/sysdump.ts': [
    [
      'a log is dumped as it is',
      'redactText(log.code === 0 ? log.stdout : log.stderr)',
      'log.stdout',
    ],
    ['the log of before is dumped as it is', 'redactText(previous.stdout)', 'previous.stdout'],
    ['objects are dumped as they are', '.slice(0, maxObjects).map(redactObject)', ''],
    ['pods are dumped as they are', 'redactObject(pod)', 'pod'],
    ['objects of others are dumped', 'isOurs(resource, each),', 'resource !== each.toString(),'],
  ],
};
