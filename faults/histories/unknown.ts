import { type Call, outcomeOf } from './call.ts'
import type { Violation } from './violation.ts'

/** Promise 3, unknown is not no: the answer is 503, not another error and not a missing answer. */
export function oddAnswers(calls: Call[]): Violation[] {
  return calls
    .filter(call => outcomeOf(call) === 'odd')
    .map(call => ({
      what: call.status === 0 ? 'no answer' : `an answer that is neither yes, no nor 503: ${call.status}`,
      calls: [call],
      about: [],
    }))
}
