/** Pause, resume, cancel, resubmit: of one transfer or of several, which are jobs of Orthanc. */
import { post } from './api'
import { t } from './i18n'
import { tell } from './messages'
import { refresh } from './status'
import type { Action, Transfer } from './types'

export const ACTION_ICONS: Record<Action, string> = { pause: 'pause', resume: 'play', cancel: 'x', resubmit: 'arrowClockwise' }

export async function act(action: Action, transfers: Transfer[]): Promise<void> {
  let done = 0
  try {
    for (const one of transfers) {
      await post(`jobs/${encodeURIComponent(one.Job ?? one.ID)}/${action}`)
      done++
    }
    tell('good', t(`done.${action}`, { n: done }))
  } catch (error) {
    tell('bad', error)
  }
  refresh()
}
