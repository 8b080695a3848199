import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { parseConfig } from '../../../../src/nmi/config/config.ts';
import { openKernel } from '../../../../src/nmi/kernel/kernel.ts';
import { settlingMs } from '../../../../src/nmi/kernel/node-redirect.ts';
import {
  readNodePods,
  writeState,
  type RedirectState,
} from '../../../../src/nmi/kernel/redirect-state.ts';
import { takeSlot } from '../../../../src/nmi/kernel/slots.ts';
import { nativeModule } from '../../../../src/redirect/native/addon.ts';
import { createLogger } from '../../../../src/base/logger.ts';
import { freePort } from '../../../../lab/fabric/free-ports.ts';
import { HandClock } from '../../../support/hand-clock.ts';

function open(
  flags: Readonly<Record<string, string>>,
  environment: Readonly<Record<string, string>> = {},
) {
  const parsed = parseConfig({ node: 'n', ...flags }, environment);
  assert.ok(parsed.ok, JSON.stringify(parsed));
  const lines: string[] = [];
  const log = createLogger({ format: 'json', level: 'info', write: (line) => lines.push(line) });
  const clock = new HandClock();
  // A redirect could not lead to loopback, but only loopback is up for certain.
  const { 'nmi-listen-address': listenIp = parsed.config.listenIp } = flags;
  return {
    clock,
    lines,
    kernel: openKernel({ config: { ...parsed.config, listenIp }, clock, log }),
  };
}

const state: RedirectState = {
  at: 'now',
  mode: 'ebpf',
  target: '169.254.169.254:80 to 127.0.0.1:2579',
  port: 2580,
  redirectedTo: 2580,
  isAlone: false,
  isLeaving: false,
  problems: [],
};

const peer = { remoteIp: '10.0.0.5', socket: 1 };

describe('the kernel side of a node', () => {
  it('logs which redirect was chosen and why', async () => {
    const { kernel, lines } = open({ redirect: 'none' });
    await using _kernel = kernel;
    const [line = '{}'] = lines;
    const { mode, why, msg } = JSON.parse(line) as Record<string, unknown>;
    assert.deepEqual([mode, why, msg], ['none', 'chosen by --redirect', 'redirect chosen']);
    assert.equal(kernel.mode, 'none');
  });

  it('is one part with a condition and samples, and without those of a redirect if there is none', async () => {
    const { kernel, clock, lines } = open({ redirect: 'none', 'ipt-update-interval-sec': '60' });
    await using _kernel = kernel;
    const sampleOf = (metric: string, outcome?: string): number | undefined =>
      kernel
        .samples()
        .find(
          (each) => each.metric === metric && (outcome ?? '') === (each.labels?.['outcome'] ?? ''),
        )?.value;
    const [condition] = kernel.conditions;
    assert.equal(condition?.name, 'redirect');
    assert.match(condition.problem() ?? '', /not installed yet/);
    assert.match(kernel.problem() ?? '', /not installed yet/);
    assert.equal(sampleOf('nmi_redirect_up'), 0);
    assert.ok(!kernel.hasBeenActive);
    await kernel.prepare();
    await kernel.start();
    assert.deepEqual([condition.problem(), kernel.problem()], [undefined, undefined]);
    assert.deepEqual([kernel.conditions, kernel.samples()], [[], []]);
    assert.deepEqual(lines.slice(1), [], 'nothing was installed');
    assert.equal(kernel.status().state, 'off');
    assert.equal(clock.armed.length, 1, 'the next check');
    assert.equal(sampleOf('nmi_ebpf_connects_total', 'redirected'), undefined, 'no programs');
  });

  it('attests and looks up callers like the redirect does', async () => {
    const { kernel } = open({ redirect: 'none' });
    await using _kernel = kernel;
    const byIpv6 = { ...peer, remoteIp: 'fd00::5' };
    assert.deepEqual(kernel.attest(byIpv6), { kind: 'by-address', place: 'unknown' });
    assert.equal(kernel.network?.placeOf('fd00::1'), 'unknown');
    assert.equal(kernel.findCgroupUid(1n, ['uid']), undefined);
  });

  it('completes what the programs know of a caller, and counts callers that it refuses', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-test-kernel-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const listen = { listenIp: '127.0.0.1', listenPort: 2579 };
    let isAnswered = true;
    t.mock.method(nativeModule(), 'callerOf', () => ({ kind: 0, cgroupId: 0n }));
    t.mock.method(nativeModule(), 'isAnswered', () => isAnswered);
    writeState(folder, state);
    const flags = { 'nmi-listen-address': listen.listenIp, 'unrecorded-callers': 'refuse' };
    const { kernel, clock } = open({ redirect: 'pinned', ...flags }, { NMI_SHARED_FOLDER: folder });
    assert.match(kernel.whyUnavailable() ?? '', /has not brought the redirect up/);
    await kernel.start();
    assert.deepEqual([kernel.port, kernel.isAlone()], [2580, false]);
    assert.equal(kernel.whyUnavailable(), undefined);
    assert.equal(kernel.network, undefined, 'no caller is identified by its address');
    const samples = () =>
      kernel.samples().map(({ metric, labels = {}, value }) => {
        const [label = ''] = Object.values(labels);
        return `${metric} ${label} ${value}`;
      });
    const before = [
      'nmi_redirect_up ebpf 1',
      'nmi_unrecorded_callers_total by_link 0',
      'nmi_unrecorded_callers_total refused 0',
    ];
    assert.deepEqual(samples(), before);
    const early = kernel.attest(peer);
    assert.match(JSON.stringify(early), /changed less than a minute ago/);
    clock.advance(settlingMs.repaired);
    assert.deepEqual(kernel.attest(peer), { kind: 'unattested', refusedBy: 'option' });
    assert.equal(samples()[2], 'nmi_unrecorded_callers_total refused 2');
    isAnswered = false;
    assert.match(kernel.problem() ?? '', /no program of this version answers/);
    assert.equal(samples()[0], 'nmi_redirect_up ebpf 0');
    await kernel.letThrough([5n]);
    assert.deepEqual(readNodePods(folder), [5n]);
    await kernel[Symbol.asyncDispose]();
    assert.deepEqual(clock.armed, []);
  });

  it('is as it was a second after the other process is back, however long it was away', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-test-kernel-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const listen = { listenIp: '127.0.0.1', listenPort: 2579 };
    const flags = { redirect: 'pinned', 'nmi-listen-address': listen.listenIp };
    const { kernel, clock } = open(flags, { NMI_SHARED_FOLDER: folder });
    await using _kernel = kernel;
    t.mock.method(nativeModule(), 'isAnswered', () => true);
    await kernel.start();
    const pass = async (ms: number) => {
      for (let passed = 0; passed < ms; passed += 100) {
        clock.advance(100);
        // For the socket.
        await delay(2);
      }
    };
    await pass(12_000);
    assert.match(kernel.problem() ?? '', /has reported nothing yet/);
    writeState(folder, state);
    await pass(1_200);
    assert.equal(kernel.problem(), undefined);
  });

  it('fails with the reason why the agent cannot start', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-test-kernel-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const flags = { redirect: 'pinned', 'nmi-listen-address': '192.0.2.1' };
    const { kernel, clock } = open(flags, { NMI_SHARED_FOLDER: folder });
    await using _kernel = kernel;
    const failed = assert.rejects(kernel.prepare(), {
      name: 'StartError',
      code: 'UNAVAILABLE',
      message: /^the listen address could not be brought up: wait for nmi redirect run: /,
    });
    for (let passed = 0; passed < 31_000; passed += 200) {
      await new Promise(setImmediate);
      clock.advance(200);
    }
    await failed;
  });

  it('has a slot of its own, though the address could not be brought up before', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'nmi-test-kernel-'));
    t.after(() => rmSync(folder, { recursive: true }));
    // No tool of this machine is run.
    const { PATH: path = '' } = process.env;
    t.after(() => (process.env['PATH'] = path));
    const tools = mkdtempSync(join(tmpdir(), 'nmi-test-no-tools-'));
    t.after(() => rmSync(tools, { recursive: true }));
    process.env['PATH'] = `${tools}:${path}`;
    for (const tool of ['ip', ...['save', 'restore'].map((each) => `iptables-nft-${each}`)]) {
      writeFileSync(join(tools, tool), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
    }
    const firstPort = await freePort();
    const flags = {
      redirect: 'iptables',
      'iptables-backend': 'nft',
      'nmi-port': String(firstPort),
    };
    const { kernel, clock } = open(flags, { NMI_POD_UID: 'two', NMI_SLOT_FOLDER: folder });
    const log = createLogger({ format: 'json', level: 'info', write: () => undefined });
    const taken = { folder, ip: '169.254.25.79', firstPort, pod: 'one', cgroup: undefined };
    using _other = await takeSlot({ ...taken, clock, log });
    await assert.rejects(kernel.prepare(), { name: 'StartError' });
    await kernel.start();
    assert.equal(kernel.port, firstPort + 1);
    assert.equal(kernel.isAlone(), false, 'the other one is older, and may listen soon');
    assert.match(kernel.problem() ?? '', /TOOL_FAILED/);
    await kernel[Symbol.asyncDispose]();
    assert.deepEqual(clock.armed, []);
  });

  it('checks no more once it is disposed', async () => {
    const { kernel, clock } = open({ redirect: 'none' });
    await kernel.start();
    await kernel[Symbol.asyncDispose]();
    assert.deepEqual(clock.armed, []);
  });
});
