/** Failures of the real metadata service, and secrets that the agent must never output. */
import assert from 'node:assert/strict';
import type { PodReply } from '../../pods/pod.ts';
import { eventually } from '../../test-bed/eventually.ts';
import {
  assertRefused,
  assertToken,
  assertUpstream,
  untilToken,
} from '../../test-bed/reply-checks.ts';
import type { Scenario } from '../../test-bed/scenario.ts';

const dayMs = 24 * 3_600_000;

const throttled: Scenario = {
  name: 'upstream-throttled',
  title:
    'A 429 of the real service is relayed with its Retry-After, and affects one identity only.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    testBed.bind('throttled', 'throttled');
    testBed.bind('spared', 'spared');
    const pod = await testBed.addPod({ name: 'app', binding: 'throttled' });
    const spared = await testBed.addPod({ name: 'spared', binding: 'spared' });
    await testBed.imds.setFaults({ fail: { status: 429, retryAfterSec: 7 }, paths: 'token' });
    const startMs = performance.now();
    // It runs down. On a machine that does not stand still it is 7 both times.
    const assertThrottled = (reply: PodReply): void => {
      assertRefused(reply, { status: 429, says: /throttles/ });
      const waitS = Number(reply.headers.get('retry-after'));
      const leastS = Math.ceil(7 - (performance.now() - startMs) / 1_000);
      assert.ok(waitS >= leastS && waitS <= 7, `Retry-After: ${waitS}, not ${leastS} to 7`);
    };
    assertThrottled(await pod.ask());
    await testBed.imds.setFaults({});
    // Another request within those seconds would only prolong the throttling.
    assertThrottled(await pod.ask());
    assert.equal(testBed.imds.requests().length, 1, 'the throttling service got another request');
    assertToken(await spared.ask(), 'spared');
    assertUpstream(testBed, ['spared']);
    return '429 with Retry-After: 7 twice for one request upstream; the other identity served';
  },
};

const down: Scenario = {
  name: 'upstream-down',
  title: 'With the real service down, cached tokens are served until they expire.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    for (const name of ['down-fresh', 'down-stale', 'down-none']) testBed.bind(name, name);
    const fresh = await testBed.addPod({ name: 'fresh', binding: 'down-fresh' });
    const stale = await testBed.addPod({ name: 'stale', binding: 'down-stale' });
    const none = await testBed.addPod({ name: 'none', binding: 'down-none' });
    assertToken(await fresh.ask(), 'down-fresh');
    try {
      // Under five minutes: the agent tries to fetch a new one before it returns this one.
      testBed.imds.setTokenLifetime(240_000);
      assertToken(await stale.ask(), 'down-stale');
      testBed.log('the real service is gone');
      await testBed.imds.setFaults({ closed: true });
      const remembered = await fresh.ask();
      assertToken(remembered, 'down-fresh');
      // Two more tries would take half a second.
      assert.ok(remembered.ownMs < 400, 'a cached token was fetched again');
      assertToken(await stale.ask(), 'down-stale');
      const reply = await none.ask();
      assertRefused(reply, { status: 503, says: /^No token for the moment: .*ECONNREFUSED/ });
      assert.ok(reply.ownMs < 5_000, `answered after ${Math.round(reply.ownMs)} ms`);
      testBed.log('the real service is back');
      await testBed.imds.setFaults({});
      await untilToken(none, 'down-none');
      // The nearly expired token is fetched again in the background, at most three times.
      const asked = testBed.upstreamTokens();
      const wanted = ['down-fresh', 'down-stale', 'down-none'];
      const from = testBed.environment.nodeIp;
      assert.deepEqual(new Set(asked), new Set(wanted.map((name) => `${name} to ${from}`)));
      assert.ok(asked.length <= wanted.length + 3, asked.join());
    } finally {
      testBed.imds.setTokenLifetime(dayMs);
    }
    return 'fresh and nearly expired token served from the cache, 503 for the one never fetched';
  },
};

const canary: Scenario = {
  name: 'no-token-in-logs',
  title: 'No token, nor its signature, is in the agent’s log or metrics.',
  needs: 'any',
  inTour: false,
  run: async (testBed) => {
    const identity = testBed.bind('canary', 'canary');
    const pod = await testBed.addPod({ name: 'app', binding: 'canary' });
    const got = await pod.ask();
    assertToken(got, 'canary');
    const token = String(got.body['access_token']);
    const bearer = ['Metadata', 'true', 'Authorization', `Bearer ${token}`];
    // A careless client puts its token where it does not belong.
    assertToken(await pod.ask({ headers: bearer }), 'canary');
    await pod.ask({ headers: bearer, target: '/metadata/instance?api-version=2021-02-01' });
    await pod.ask({ headers: bearer, target: `/${token}` });
    await pod.ask({ query: `client_id=${token}` });
    await pod.ask({ query: `object_id=${token}` });
    await pod.ask({ query: `access_token=${token}` });
    await pod.ask({ method: 'POST', headers: bearer, body: `assertion=${token}` });
    await pod.ask({ resource: 'https://canary.lab', query: `client_id=${identity.clientId}` });
    // Lines arrive asynchronously; when the last request's line is here, all are here.
    await eventually(() => {
      assert.ok(testBed.agent.lines.some((line) => line.includes('https://canary.lab')));
    });
    const { lines } = testBed.agent;
    const page = await testBed.agent.page('metrics');
    assert.equal(page?.status, 200);
    // Ids are compared, and might be written, in lower case.
    const told = `${lines.join('\n')}\n${page.text}`.toLowerCase();
    const tokens = testBed.imds.issuedTokens();
    assert.ok(tokens.includes(token));
    for (const issued of tokens) {
      const [, payload = '', signature = ''] = issued.split('.');
      for (const secret of [payload, signature]) {
        assert.ok(secret.length > 20);
        assert.ok(
          !told.includes(secret.toLowerCase()),
          `part of a token of the lab is in log or metrics`,
        );
      }
    }
    assertUpstream(testBed, ['canary', 'canary']);
    return `${tokens.length} tokens, ${lines.length} log lines and the metrics page compared`;
  },
};

/** The canary runs last: it checks everything that the lab's agents have printed. */
export const upstreamScenarios: readonly Scenario[] = [throttled, down];
export const canaryScenarios: readonly Scenario[] = [canary];
