// All requests that a page can try, with a leaked token of the server. Returns everything it could read.
async ([url, token, header]) => {
  const tried = {};
  const attempt = async (name, act) => {
    try { tried[name] = await act(); } catch (error) { tried[name] = 'refused'; }
  };
  const body = JSON.stringify({clusterName: 'of-a-page'});
  const form = 'Action=CreateSecurityGroup&GroupName=of-a-page&GroupDescription=x&Version=2016-11-15';
  const type = {'Content-Type': 'application/x-amz-json-1.1', 'X-Amz-Target': 'AmazonEC2ContainerServiceV20141113.CreateCluster', [header]: token};
  for (const path of ['/_local/status', '/v2/', '/', '/imds/i-0/latest/meta-data/', '/moto-api/data.json']) {
    await attempt('GET ' + path, async () => await (await fetch(url + path)).text());
    await attempt('no-cors GET ' + path, async () => await (await fetch(url + path, {mode: 'no-cors'})).text());
  }
  await attempt('token', async () => await (await fetch(url + '/_local/status', {headers: {[header]: token}})).text());
  await attempt('call', async () => await (await fetch(url, {method: 'POST', headers: type, body})).text());
  for (const mode of ['cors', 'no-cors']) {
    const post = async (path, body) => await (await fetch(url + path, {method: 'POST', mode, body})).text();
    await attempt(mode + ' shutdown', () => post('/_local/shutdown', '{}'));
    await attempt(mode + ' clock', () => post('/_local/clock', '{"advance": 1000000000}'));
    await attempt(mode + ' form', () => post('/', new URLSearchParams(form)));
  }
  await attempt('beacon', async () => { navigator.sendBeacon(url + '/_local/shutdown', '{}'); return ''; });
  await attempt('form', () => new Promise(done => {
    const frame = document.body.appendChild(Object.assign(document.createElement('iframe'), {name: 'f'}));
    const send = Object.assign(document.createElement('form'),
      {method: 'POST', action: url + '/_local/shutdown', target: 'f', enctype: 'text/plain'});
    frame.onload = () => { try { done(frame.contentDocument.body.innerText); } catch (e) { done('refused'); } };
    document.body.appendChild(send).submit();
  }));
  for (const tag of ['img', 'script', 'iframe', 'link', 'object']) {
    await attempt(tag, () => new Promise(done => {
      const made = document.createElement(tag);
      made.onerror = () => done('refused');
      made.onload = () => { try { done(made.contentDocument.body.innerText); } catch (e) { done('refused'); } };
      made.rel = 'stylesheet'; made.src = made.href = made.data = url + '/_local/status';
      document.body.appendChild(made);
    }));
  }
  await attempt('websocket', () => new Promise(done => {
    const socket = new WebSocket(url.replace('http', 'ws') + '/_local/status');
    socket.onopen = () => done('open'); socket.onerror = () => done('refused');
  }));
  await attempt('events', () => new Promise(done => {
    const source = new EventSource(url + '/_local/status');
    source.onopen = () => done('open'); source.onerror = () => { source.close(); done('refused'); };
  }));
  return tried;
}
