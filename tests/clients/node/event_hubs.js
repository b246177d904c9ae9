// Reading the built-in endpoint.
'use strict';

const { EventHubConsumerClient } = require('@azure/event-hubs');

const readers = new Map();

// Told at once. By itself the client tries three times more, also after a refusal, for keys may have been replaced.
function consumer(group, login) {
  return new EventHubConsumerClient(group, login, { retryOptions: { maxRetries: 0 } });
}

// {login, group}: what the endpoint says of itself and of its partitions.
exports.describe = async ({ login, group }) => {
  const client = consumer(group, login);
  try {
    const ids = await client.getPartitionIds();
    return {
      endpoint: await client.getEventHubProperties(),
      partitions: await Promise.all(ids.map((id) => client.getPartitionProperties(id))),
    };
  } finally {
    await client.close();
  }
};

function shown(event) {
  return { ...event, body: Buffer.isBuffer(event.body) ? event.body.toString() : event.body };
}

// {name, login, group, partition, options}: reads until `close`, one partition or all of them; tells "event" and "error".
exports.open = async ({ name, login, group, partition, options }, tell) => {
  const client = consumer(group, login);
  const handlers = {
    processEvents: async (events, context) => {
      for (const event of events) {
        tell(name, 'event', { ...shown(event), last: context.lastEnqueuedEventProperties });
      }
    },
    processError: async (error) => tell(name, 'error', error),
  };
  // Unless it waits no longer than that for a batch to become full, the client keeps for a minute what has come.
  const all = { maxWaitTimeInSeconds: 1, ...options };
  readers.set(name, client);
  if (partition === undefined) {
    client.subscribe(handlers, all);
  } else {
    client.subscribe(partition, handlers, all);
  }
};

exports.close = async ({ name }) => {
  await readers.get(name).close();
  readers.delete(name);
};
