/** Faults that a program can make of a source file: each is one small edit of its syntax tree. */
import { parseSync, Visitor } from 'rolldown/utils';

export const operators = [
  'comparison negated',
  'comparison shifted',
  'condition negated',
  'and/or exchanged',
  'early exit dropped',
  'await dropped',
  'call removed',
  'arguments swapped',
  'constant changed',
] as const;
export type Operator = (typeof operators)[number];

export interface Mutant {
  /** From the root. */
  readonly file: string;
  readonly line: number;
  readonly operator: Operator;
  /** Offsets in the text of the file. */
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
}

interface Node {
  readonly start: number;
  readonly end: number;
}

const negated: Readonly<Record<string, string>> = {
  '===': '!==',
  '!==': '===',
  '<': '>=',
  '<=': '>',
  '>': '<=',
  '>=': '<',
};
const shifted: Readonly<Record<string, string>> = { '<': '<=', '<=': '<', '>': '>=', '>=': '>' };
const exchanged: Readonly<Record<string, string>> = { '&&': '||', '||': '&&' };

/**
 * Of one file, in the order of its text. A line after a comment `// No mutation: REASON` has none:
 * the reason says why no test can see a fault there.
 * @throws Error if the file does not parse.
 */
export function mutantsOf(file: string, text: string): readonly Mutant[] {
  const { program, errors, comments } = parseSync(file, text, { lang: 'ts', sourceType: 'module' });
  const [error] = errors;
  if (error !== undefined) throw new Error(`${file}: ${error.message}`);
  const lineStarts = [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)];
  const lineAt = (offset: number): number => lineStarts.findLastIndex((at) => at <= offset) + 1;
  const excluded = new Set(
    comments
      .filter(({ value }) => /^\s*No mutation: \S/.test(value))
      .map(({ end }) => lineAt(text.slice(end).search(/\n\s*(?!\s|\/\/)/) + end + 1)),
  );
  const mutants: Mutant[] = [];
  /** Literals without a fault: types, results of comparisons, and lists of numbers, as of a histogram. */
  const data = new Set<number>();
  const source = ({ start, end }: Node): string => text.slice(start, end);
  const add = (operator: Operator, { start, end }: Node, replacement: string): void => {
    const line = lineAt(start);
    const isNew = replacement !== text.slice(start, end);
    if (isNew && !excluded.has(line))
      mutants.push({ file, line, operator, start, end, replacement });
  };
  /** The operator between two operands, which comments may surround. */
  const between = (left: Node, right: Node, operator: string): Node => {
    const start = text.indexOf(operator, left.end);
    return start >= right.start ? left : { start, end: start + operator.length };
  };
  const negate = (test: Node & { readonly type: string }): void => {
    if (test.type !== 'BinaryExpression' && test.type !== 'LogicalExpression') {
      add('condition negated', test, `!(${source(test)})`);
    }
  };

  new Visitor({
    BinaryExpression({ left, right, operator }) {
      const place = between(left, right, operator);
      const [other, next] = [negated[operator], shifted[operator]];
      if (other !== undefined) add('comparison negated', place, other);
      if (next !== undefined) add('comparison shifted', place, next);
    },
    LogicalExpression({ left, right, operator }) {
      const other = exchanged[operator];
      if (other !== undefined) add('and/or exchanged', between(left, right, operator), other);
    },
    IfStatement(statement) {
      const { test, consequent, alternate } = statement;
      negate(test);
      const [only] = consequent.type === 'BlockStatement' ? consequent.body : [consequent];
      const isSingle = consequent.type !== 'BlockStatement' || consequent.body.length === 1;
      const isExit = only !== undefined && exits.has(only.type);
      if (isSingle && isExit && alternate === null) add('early exit dropped', statement, '{}');
    },
    ConditionalExpression({ test, consequent, alternate }) {
      negate(test);
      // Sorting only depends on whether the result is negative.
      if (source(consequent) === '-1') data.add(alternate.start);
    },
    WhileStatement: ({ test }) => negate(test),
    AwaitExpression({ start, argument }) {
      // The value of a promise that is not awaited is missed by the compiler already.
      const isStatement = /(?:^|[;{}\n])\s*$/.test(text.slice(0, start));
      if (isStatement) add('await dropped', { start, end: argument.start }, 'void ');
    },
    ExpressionStatement(statement) {
      const { expression } = statement;
      const inner = expression.type === 'AwaitExpression' ? expression.argument : expression;
      if (inner.type === 'CallExpression' && inner.callee.type !== 'Super') {
        add('call removed', statement, '{}');
      }
    },
    CallExpression({ callee, arguments: [first, second] }) {
      // The order does not matter to Math.min and Math.max.
      if (source(callee).startsWith('Math.')) return;
      if (first === undefined || second === undefined) return;
      // Others are missed by the compiler.
      if (first.type !== second.type) return;
      const middle = text.slice(first.end, second.start);
      add(
        'arguments swapped',
        { start: first.start, end: second.end },
        `${source(second)}${middle}${source(first)}`,
      );
    },
    TSLiteralType: ({ literal }) => void data.add(literal.start),
    ArrayExpression({ elements }) {
      for (const element of elements) if (element?.type === 'Literal') data.add(element.start);
    },
    Literal(literal) {
      const { value } = literal;
      if (data.has(literal.start)) return;
      if (typeof value === 'boolean') add('constant changed', literal, String(!value));
      if (typeof value === 'number') add('constant changed', literal, value === 0 ? '1' : '0');
    },
  }).visit(program);
  return mutants.toSorted((a, b) => a.start - b.start || a.end - b.end);
}

const exits: ReadonlySet<string> = new Set([
  'ReturnStatement',
  'ThrowStatement',
  'ContinueStatement',
  'BreakStatement',
]);

export function apply(text: string, { start, end, replacement }: Mutant): string {
  return `${text.slice(0, start)}${replacement}${text.slice(end)}`;
}
